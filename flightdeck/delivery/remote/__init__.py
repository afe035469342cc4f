"""The remote of `make git-remote`: what its hooks do on a push.

All of it but `install` is copied into the bare repository and runs there, with any Python from 3.11 on, without the
checkout and without an environment: so it uses the standard library only, and no push can change it.
"""
