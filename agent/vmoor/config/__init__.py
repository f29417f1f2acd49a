"""The configuration: YAML drop-ins, one schema, every problem at once, frozen values."""
