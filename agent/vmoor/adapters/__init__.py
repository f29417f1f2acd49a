"""One module per outside thing: the only rooms that know libraries, files, sockets, commands."""
