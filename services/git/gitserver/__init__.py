"""A git server: dulwich speaks git's protocol, waitress HTTP; here is who may do what, and word of pushes."""
