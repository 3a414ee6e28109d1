"""A sampling calorimeter as data: layers of absorber and silicon, read out in square cells."""

import json
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from functions.calorimeter.materials import MATERIALS, Material
from layers.runtime import InputError

AXIS_DEPTH_MM = 60.0
"""The depth at which the axis of every shower crosses the middle of the read-out window, whatever its angle."""
MOST_LAYERS = 100
MOST_CELLS = 200
_THICKNESSES = ("absorber_mm", "sensor_mm", "gap_mm")


@dataclass(frozen=True)
class Layer:
    """Absorber first, then the sensor, then a gap of air and electronics, here a vacuum; in mm."""

    absorber: Material
    absorber_mm: float
    sensor: Material
    sensor_mm: float
    gap_mm: float

    @property
    def pitch_mm(self) -> float:
        """From the front of this layer to the front of the next."""
        return self.absorber_mm + self.sensor_mm + self.gap_mm

    @property
    def radiation_lengths(self) -> float:
        """Of absorber and sensor."""
        return self.absorber_mm / self.absorber.radiation_length_mm + self.sensor_mm / self.sensor.radiation_length_mm


@dataclass(frozen=True)
class Geometry:
    """Layers in the order of depth, each with `cells` x `cells` square cells of `cell_mm`."""

    name: str
    title: str
    cells: int
    cell_mm: float
    layers: tuple[Layer, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Cells in x, in y, and in depth, the order of the field's arrays."""
        return (self.cells, self.cells, len(self.layers))

    @property
    def window_mm(self) -> float:
        """The side of the read-out window."""
        return self.cells * self.cell_mm

    @cached_property
    def fronts_mm(self) -> tuple[float, ...]:
        """The depth at which each layer begins."""
        fronts, depth = [], 0.0
        for layer in self.layers:
            fronts.append(depth)
            depth += layer.pitch_mm
        return tuple(fronts)

    @cached_property
    def middles_mm(self) -> tuple[float, ...]:
        """The depth of the middle of each sensor."""
        pairs = zip(self.fronts_mm, self.layers, strict=True)
        return tuple(front + layer.absorber_mm + layer.sensor_mm / 2 for front, layer in pairs)

    @property
    def depth_mm(self) -> float:
        """The depth of the whole."""
        return self.fronts_mm[-1] + self.layers[-1].pitch_mm

    @property
    def radiation_lengths(self) -> float:
        """The depth in radiation lengths.

        >>> round(load_geometry("siw25").radiation_lengths, 1)
        22.8
        """
        return sum(layer.radiation_lengths for layer in self.layers)

    @property
    def elements(self) -> tuple[int, ...]:
        """The atomic numbers in it."""
        return tuple(sorted({m.z for layer in self.layers for m in (layer.absorber, layer.sensor)}))

    def as_json(self) -> dict[str, Any]:
        """The document that `geometry_from_json` reads; equal layers are told once."""
        told: list[dict[str, Any]] = []
        for layer in self.layers:
            one = {
                "absorber": layer.absorber.name,
                "absorber_mm": layer.absorber_mm,
                "sensor": layer.sensor.name,
                "sensor_mm": layer.sensor_mm,
                "gap_mm": layer.gap_mm,
            }
            if told and {key: told[-1][key] for key in one} == one:
                told[-1]["count"] += 1
            else:
                told.append({"count": 1, **one})
        return {
            "name": self.name,
            "title": self.title,
            "cells": self.cells,
            "cell_mm": self.cell_mm,
            "layers": told,
        }


def known_geometries() -> list[str]:
    """The names of the geometries that come with the twin."""
    folder = files("functions.calorimeter") / "geometries"
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def load_geometry(given: str | dict[str, Any], where: str = "geometry") -> Geometry:
    """The geometry of that name, or the one that a document describes. Raises InputError, naming the field."""
    if isinstance(given, str):
        if given not in known_geometries():
            names = ", ".join(known_geometries())
            raise InputError(f'{where}: there is no geometry "{given}"; write one of {names}, or describe your own')
        text = (files("functions.calorimeter") / "geometries" / f"{given}.json").read_text(encoding="utf-8")
        return geometry_from_json(json.loads(text), where)
    return geometry_from_json(given, where)


def geometry_from_json(document: dict[str, Any], where: str) -> Geometry:
    """Read a geometry's document; raises InputError, naming field and mend."""
    for name in document:
        if name not in ("name", "title", "cells", "cell_mm", "layers"):
            raise InputError(
                f'{where}: has an unknown field "{name}"; the known ones are name, title, cells, cell_mm, layers'
            )
    cells = document.get("cells")
    if not isinstance(cells, int) or isinstance(cells, bool) or not 3 <= cells <= MOST_CELLS:
        raise InputError(f"{where}.cells: {cells!r} is no whole number from 3 to {MOST_CELLS}; write e.g. 51")
    told = document.get("layers")
    if not isinstance(told, list) or not told:
        raise InputError(f"{where}.layers: is no list of layers; write at least one")
    layers: list[Layer] = []
    for place, one in enumerate(told):
        layers += _layers(one, f"{where}.layers[{place}]", MOST_LAYERS - len(layers))
    return Geometry(
        name=str(document.get("name") or "own"),
        title=str(document.get("title") or ""),
        cells=cells,
        cell_mm=_length(document.get("cell_mm"), f"{where}.cell_mm", least=0.1),
        layers=tuple(layers),
    )


def _layers(one: object, where: str, room: int) -> list[Layer]:
    if not isinstance(one, dict):
        raise InputError(f"{where}: is no object; write absorber, absorber_mm, sensor, sensor_mm, gap_mm and count")
    for name in one:
        if name not in ("count", "absorber", "sensor", *_THICKNESSES):
            known = ", ".join(("count", "absorber", "sensor", *_THICKNESSES))
            raise InputError(f'{where}: has an unknown field "{name}"; the known ones are {known}')
    count = one.get("count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= room:
        raise InputError(
            f"{where}.count: {count!r} is no whole number from 1 up; a geometry has at most {MOST_LAYERS} layers"
        )
    layer = Layer(
        absorber=_material(one.get("absorber"), f"{where}.absorber"),
        absorber_mm=_length(one.get("absorber_mm"), f"{where}.absorber_mm", least=0.01),
        sensor=_material(one.get("sensor"), f"{where}.sensor"),
        sensor_mm=_length(one.get("sensor_mm"), f"{where}.sensor_mm", least=0.01),
        gap_mm=_length(one.get("gap_mm"), f"{where}.gap_mm", least=0.0),
    )
    return [layer] * count


def _material(name: object, where: str) -> Material:
    if not isinstance(name, str) or name not in MATERIALS:
        raise InputError(f'{where}: "{name}" is no known material; write one of {", ".join(MATERIALS)}')
    return MATERIALS[name]


def _length(value: object, where: str, *, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 1000:
        raise InputError(f"{where}: {value!r} is no length from {least:g} to 1000 mm; write it in mm")
    return float(value)
