"""One command of `cachetool` a module: its function `command` is the command, the module's name its name."""
