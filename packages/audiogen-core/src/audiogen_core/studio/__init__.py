"""An HTTP service over the jobs of whatever packages are installed.

The server imports no backend. Work is kept on disk (`queue`) and done in a process of its own for each
package (`worker`, started by `workers`); `studio` brings both together over the folder of clips (`library`),
and `service` is what is spoken over HTTP, behind the checks of `guard`. Needs `audiogen-core[studio]`.
"""
