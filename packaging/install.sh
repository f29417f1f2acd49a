#!/bin/bash
# Put into DESTDIR all of the package that is not a Python module: the .deb and the .rpm both call
# it, so that a new file is added here and nowhere else.
# Usage: [UNITDIR=...] [ZSHDIR=...] install.sh DESTDIR
set -euo pipefail

root=$(realpath -m "$1")
units=${UNITDIR:-/usr/lib/systemd/system}
zsh=${ZSHDIR:-/usr/share/zsh/site-functions} # what Debian calls vendor-completions
cd "$(dirname "$0")/.."

put() { # put MODE FOLDER FILE...
    install -d "$root$2"
    install -p -m "$1" -t "$root$2" "${@:3}"
}

write() { # write FILE: what comes on standard input
    install -D -m 0644 /dev/stdin "$root$1"
}

put 0644 "$units" packaging/systemd/*
put 0644 /usr/lib/sysusers.d packaging/sysusers.d/*
put 0644 /usr/lib/tmpfiles.d packaging/tmpfiles.d/*
put 0644 /usr/lib/systemd/logind.conf.d packaging/logind.conf.d/*
put 0644 /usr/lib/systemd/catalog packaging/catalog/*
put 0644 /usr/share/polkit-1/rules.d packaging/polkit/*
put 0644 /etc/needrestart/conf.d packaging/needrestart/*
put 0755 /usr/libexec/vmoor packaging/libexec/*
put 0644 /usr/share/vmoor/templates templates/*.j2
put 0644 /usr/share/doc/vmoor/examples packaging/conf/vmoor.yaml

rst2man packaging/man/vmoor.8.rst | write /usr/share/man/man8/vmoor.8
python3 -B packaging/man/from_schema.py agent/vmoor/config/schema.json | rst2man |
    write /usr/share/man/man5/vmoor.yaml.5

complete() { # complete SHELL: the script that click makes of the command tree
    PYTHONPATH=agent _VMOOR_COMPLETE=$1_source python3 -B -m vmoor
}
complete bash | write /usr/share/bash-completion/completions/vmoor
complete fish | write /usr/share/fish/vendor_completions.d/vmoor.fish
complete zsh | write "$zsh/_vmoor"
