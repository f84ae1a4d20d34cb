"""The crash test: what must hold when a process is killed, power is lost, a disk fails or a file is damaged."""
