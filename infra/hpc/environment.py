"""A container's variables, handed on exactly as they are, never in an argument list.

Linux hands a process no variable of more than 128 KiB. A shell can have larger ones of its own, so where a container's
command is `sh -c SCRIPT` (as OSCAR's is, with its event in EVENT), these are set in the script and not exported.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from infra.hpc.protocol import Container, PodRefused

LARGEST = 131_071
"""Bytes of `NAME=value`: Linux's MAX_ARG_STRLEN, less the byte that ends it."""
TOTAL = 1 << 20
"""Bytes of all variables and arguments together that every Linux takes (it takes a quarter of the stack's limit)."""
LINE = 32_768
"""Bytes of a line in an env-file that podman reads for certain."""
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OF_THE_CLIENT = re.compile(r"PATH|HOME|TMPDIR|(XDG|CONTAINERS?|DOCKER|PODMAN|REGISTRY|LD|STORAGE|NOTIFY)_\w+")
"""Variables that would change what podman itself does, were they handed on through it."""
HEAR = "trap 'case $? in 0) ;; *) exit $? ;; esac' TERM"
SHELLS = ("sh", "bash", "dash", "ash", "ksh", "zsh")


HANDED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|XDG_RUNTIME_DIR|LD_LIBRARY_PATH|CUDA_VISIBLE_DEVICES|"
    r"(OMP|MKL|OPENBLAS)_\w+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(https?|no|all)_proxy|(HTTPS?|NO|ALL)_PROXY"
)
"""The variables of the plugin that a job may see: what a login on this machine would set."""


def handed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """Of the plugin's environment, what its jobs see."""
    return {name: value for name, value in environ.items() if HANDED_ON.fullmatch(name)}


class Environment:
    """The variables of one container. Raises PodRefused for what cannot be handed on."""

    def __init__(self, container: Container, more: Mapping[str, str]) -> None:
        self._where = f"container {container.name}"
        values = dict(more)
        for variable in container.env:
            _check(f"{self._where}: env {variable.name}", variable.name, variable.value)
            if variable.value_from is not None and not variable.value:
                continue  # nobody has resolved it: then it is not set
            values[variable.name] = variable.value
        sizes = {name: len(name) + 1 + len(value.encode()) for name, value in values.items()}
        self.large = {name: value for name, value in values.items() if sizes[name] > LARGEST}
        """What only a shell can have."""
        self.small = {name: value for name, value in values.items() if name not in self.large}
        words = [*container.command, *container.args]
        for word in words:
            if "\0" in word or not _is_text(word):
                raise PodRefused(f"{self._where}: command: holds a character that no argument can; leave it out")
            if len(word.encode()) > LARGEST:
                raise PodRefused(f"{self._where}: command: an argument is longer than 128 KiB; put it into a ConfigMap")
        if sum(sizes[name] for name in self.small) + sum(len(word.encode()) for word in words) > TOTAL:
            raise PodRefused(f"{self._where}: env: is more than 1 MiB together; put some of it into a ConfigMap")

    def exports(self, change: Callable[[str], str] = str) -> str:
        """Lines that set and export the variables in a shell, each value as `change` has it."""
        return "".join(f"export {name}={shlex.quote(change(value))}\n" for name, value in self.small.items())

    def assignments(self) -> str:
        """The same as a shell's assignments, which is what Apptainer reads."""
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.small.items())

    def own(self) -> str:
        """Lines that set the large variables in a shell."""
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in self.large.items())

    @property
    def handed_on(self) -> list[str]:
        """The variables that podman takes from its own environment: those that are no line of a file."""
        names = [name for name, value in self.small.items() if not _is_line(name, value)]
        for name in names:
            if OF_THE_CLIENT.fullmatch(name):
                raise PodRefused(f"{self._where}: env {name}: podman takes only one short line for it; shorten it")
        return names

    def file(self) -> str:
        """The other variables, as podman's env-file has them."""
        return "".join(f"{name}={value}\n" for name, value in self.small.items() if _is_line(name, value))

    def exports_of(self, names: Sequence[str]) -> str:
        """Lines that set and export some of them."""
        return "".join(f"export {name}={shlex.quote(self.small[name])}\n" for name in names)

    def sourced(self, command: Sequence[str], path: str) -> list[str]:
        """A command as it is to be started: a shell's begins by setting the large variables, from the file `path`.

        It also hears SIGTERM, as all processes of a pod do, only once what it waits for has ended, and then ends with
        the status of that; if that was 0, it goes on. Else a supervisor's 75 would be lost with the shell around it.
        """
        is_shell = len(command) > 2 and PurePosixPath(command[0]).name in SHELLS and re.fullmatch(r"-\w*c", command[1])
        if is_shell:
            first = f". {shlex.quote(path)}\n" if self.large else ""
            return [*command[:2], f"{HEAR}\n{first}{command[2]}", *command[3:]]
        for name, value in self.large.items():
            raise PodRefused(
                f"{self._where}: env {name}: has {len(value.encode())} bytes, and Linux hands a process at most "
                "128 KiB in one variable; put it into a ConfigMap, or write the command as sh -c"
            )
        return list(command)


def _check(where: str, name: str, value: str) -> None:
    if not NAME.fullmatch(name):
        raise PodRefused(f"{where}: no shell takes this name; use letters, digits and underscores")
    if "\0" in value or not _is_text(value):
        raise PodRefused(f"{where}: holds a character that no variable can; encode it in base64")


def _is_text(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_line(name: str, value: str) -> bool:
    return not set(value) & set("\n\r") and len(name) + len(value.encode()) < LINE
