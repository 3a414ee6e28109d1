"""A pod's volumes as files and folders of its folder, and where each container sees them.

Kinds that interLink brings: ConfigMap, Secret, projected, emptyDir, and hostPath where the site allows it. Any other is
refused: a container must not start without what it mounts. Files are readable by the account that runs the job only; of
a file's mode, what its owner may do is kept. An emptyDir outlives a run of its pod that ends with 75.

What a pod can write, it can put links into, and whoever mounts a path in it follows them on the node. So no path in an
emptyDir is mounted, and one of the node's is looked at again when the container starts (`infra.hpc.runtimes`).
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from infra.hpc.protocol import Container, CreateRequest, KeyToPath, PodRefused, Volume, VolumeMount
from infra.hpc.settings import Settings

VOLUMES = "volumes"
DEFAULT_MODE = 0o644


@dataclass(frozen=True)
class Mount:
    """A file or folder of the compute node, and its path in the container."""

    source: Path
    target: str
    read_only: bool = False
    of_the_node: bool = False
    """A host path: whoever can write there may have put a link into it since."""


class Volumes:
    """The volumes of one pod."""

    def __init__(self, request: CreateRequest, folder: Path, settings: Settings) -> None:
        self._folder = folder / VOLUMES
        self._host_paths = settings.host_paths
        self._volumes = {volume.name: volume for volume in request.pod.spec.volumes}
        maps = [one for data in request.container for one in data.config_maps]
        secrets = [one for data in request.container for one in data.secrets]
        projected = [one for data in request.container for one in data.projected_volume_maps]
        self._maps = {one.metadata.name: one for one in maps}
        self._secrets = {one.metadata.name: one for one in secrets}
        self._projected = {one.metadata.name: one for one in projected}
        self._made: dict[str, Path] = {}

    def mounts(self, container: Container) -> list[Mount]:
        """Write what a container mounts, and say where it is. Raises PodRefused, OSError."""
        found = [self._mount(container, mount) for mount in container.volume_mounts]
        targets = [mount.target for mount in found]
        for target in targets:
            if targets.count(target) > 1:
                raise PodRefused(
                    f"container {container.name}: volumeMounts: two are at {target}; give each its own path"
                )
        return found

    def _mount(self, container: Container, mount: VolumeMount) -> Mount:
        where = f"container {container.name}: volumeMount {mount.name}"
        volume = self._volumes.get(mount.name)
        if volume is None:
            raise PodRefused(f"{where}: there is no such volume; add it to spec.volumes")
        if mount.sub_path_expr:
            raise PodRefused(f"{where}: subPathExpr is not supported; write a subPath")
        if mount.name not in self._made:
            self._made[mount.name] = self._make(volume)
        source = self._made[mount.name]
        if mount.sub_path:
            path = source / _inside(mount.sub_path, f"{where}: subPath")
            if volume.empty_dir is not None:
                raise PodRefused(f"{where}: subPath: of an emptyDir only the whole can be mounted; leave subPath out")
            if volume.host_path is not None:
                path = Path(os.path.realpath(path))
                if not path.is_relative_to(source):
                    raise PodRefused(f"{where}: subPath: a link leads out of {source}; write a path that stays in it")
            elif not path.exists():
                raise PodRefused(f'{where}: subPath: the volume has no "{mount.sub_path}"')
            source = path
        on_node = volume.host_path is not None
        read_only = mount.read_only or (volume.empty_dir is None and not on_node)
        return Mount(source, target_of(mount.mount_path, where), read_only, on_node)

    def _make(self, volume: Volume) -> Path:
        where = f"volume {volume.name}"
        if volume.host_path is not None:
            return self._host_path(where, volume.host_path.path)
        folder = self._folder / _inside(volume.name, where)
        if volume.empty_dir is not None:
            private_folder(folder)
            return folder
        files: Mapping[str, bytes]
        items: Sequence[KeyToPath] = ()
        if volume.config_map is not None:
            source, name, found = "ConfigMap", volume.config_map.name, self._maps.get(volume.config_map.name)
            items, mode, optional = volume.config_map.items, volume.config_map.default_mode, volume.config_map.optional
            files = found.files() if found else {}
        elif volume.secret is not None:
            source, name, secret = "Secret", volume.secret.secret_name, self._secrets.get(volume.secret.secret_name)
            items, mode, optional = volume.secret.items, volume.secret.default_mode, volume.secret.optional
            files, found = secret.files() if secret else {}, secret  # type: ignore[assignment]
        elif volume.projected is not None:
            source, name, found = "projection", volume.name, self._projected.get(volume.name)
            mode, optional = volume.projected.default_mode, False
            files = found.files() if found else {}
        else:
            kind = volume.kind or "of no kind"
            raise PodRefused(
                f"{where}: is {kind}, which cannot be mounted here; use emptyDir, configMap, secret, projected"
                f"{' or hostPath' if self._host_paths else ''}, or fetch the data from a bucket"
            )
        if found is None and not optional:
            raise PodRefused(f"{where}: its {source} {name} did not come with the pod")
        private_folder(folder)
        for path, content, own in _chosen(files, items, where, optional):
            target = folder / _inside(path, where)
            private_folder(target.parent)
            private_file(target, content, own if own is not None else mode)
        return folder

    def _host_path(self, where: str, path: str) -> Path:
        resolved = Path(os.path.realpath(path))
        allowed = any(resolved.is_relative_to(os.path.realpath(above)) for above in self._host_paths)
        if not path.startswith("/") or not allowed:
            there = f"it must be below {' or '.join(self._host_paths)}" if self._host_paths else "this site allows none"
            raise PodRefused(f"{where}: hostPath {path}: {there} (setting host_paths)")
        return resolved


def image_mounts(image: str, settings: Settings) -> list[Mount]:
    """What a container of an image sees that has no image: folders of this machine, read-only."""
    return [
        Mount(Path(source), target_of(target, f"setting images: {pattern}"), read_only=True)
        for pattern, folders in settings.images.items()
        if fnmatchcase(image, pattern)
        for target, source in folders.items()
    ]


def target_of(path: str, where: str) -> str:
    """A path in a container, without a slash at its end. Raises PodRefused for what no runtime could be told."""
    parts = PurePosixPath(path).parts
    if (
        not path.startswith("/")
        or len(parts) < 2
        or ".." in parts
        or not path.isprintable()
        or set(path) & set(':,"\\')
    ):
        raise PodRefused(
            f'{where}: "{path}" is no path to mount at; write an absolute one, without "..", colon or comma'
        )
    return str(PurePosixPath("/", *parts[1:]))


def private_folder(path: Path) -> None:
    """Make a folder and those above it that only their owner can use."""
    if not path.is_dir():
        private_folder(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def private_file(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a file that only its owner can use; durable on return, but for its name."""
    bits = 0o400 | ((DEFAULT_MODE if mode is None else mode) & 0o700)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream:  # noqa: PTH123 - it has a mode of its own
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(bits)


def _chosen(
    files: Mapping[str, bytes], items: Sequence[KeyToPath], where: str, optional: bool
) -> Iterator[tuple[str, bytes, int | None]]:
    if not items:
        yield from ((name, content, None) for name, content in files.items())
        return
    for item in items:
        if item.key in files:
            yield item.path, files[item.key], item.mode
        elif not optional:
            raise PodRefused(
                f'{where}: items: there is no key "{item.key}"; there are {", ".join(sorted(files)) or "none"}'
            )


def _inside(path: str, where: str) -> PurePosixPath:
    relative = PurePosixPath(path)
    if not path or relative.is_absolute() or ".." in relative.parts or "\0" in path or not relative.parts:
        raise PodRefused(f'{where}: "{path}" does not stay inside the volume; write a relative path without ".."')
    return relative
