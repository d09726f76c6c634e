"""The provider kind: a cluster whose nodes are containers of a Docker engine.

`cluster` has what notebooks hold, `create` makes and resumes, `workers` joins, `tear_down` removes, `images`
builds and loads, `registry` pulls and remembers digests, `binary` finds kind, `engine` is Docker's command.
"""
