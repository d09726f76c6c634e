"""The load generator's own process: sends requests at their times and measures the answers.

It is a program of its own (`python -m labkit.sender`), so that a busy notebook takes none of its time.
`labkit.load` starts it and reads what it measures.
"""
