"""The command line: options become one configuration and one call of the library."""
