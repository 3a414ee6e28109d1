"""A receiver's band: the frequency and time grid that components of a scene are drawn on."""

from dataclasses import dataclass

import numpy as np

from functions.pulsar.arrays import Floats


@dataclass(frozen=True)
class Band:
    """`channels` channels, the highest first, sampled every `sampling_time_s`."""

    centre_mhz: float = 1370.625
    bandwidth_mhz: float = 320.0
    channels: int = 256
    sampling_time_s: float = 102.4e-6

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels: {self.channels} is less than 1")
        if not 0 < self.bandwidth_mhz < 2 * self.centre_mhz:
            raise ValueError(f"bandwidth_mhz: {self.bandwidth_mhz} does not leave all of the band above 0 MHz")
        if not 0 < self.sampling_time_s < 10:
            raise ValueError(f"sampling time: {self.sampling_time_s} s is not between 0 and 10 s")

    @property
    def channel_width_mhz(self) -> float:
        return self.bandwidth_mhz / self.channels

    @property
    def frequency_mhz(self) -> Floats:
        """Channel centres, descending.

        >>> Band().frequency_mhz[[0, -1]].tolist()
        [1530.0, 1211.25]
        """
        top = self.centre_mhz + self.bandwidth_mhz / 2 - self.channel_width_mhz / 2
        return np.asarray(top - self.channel_width_mhz * np.arange(self.channels))


EFFELSBERG = Band()
"""The 21-cm receiver at Effelsberg as in the Crab observation of 2020-05-31: 38.15 frames a second."""

OTHER_BANDS = (
    Band(1316.0, 336.0, 256, 1.26646875e-3),  # ASKAP fly's eye
    Band(1284.0, 856.0, 256, 306.24e-6),  # MeerKAT L band
    Band(1370.0, 340.0, 256, 64e-6),  # a 21-cm multibeam receiver
    Band(350.0, 100.0, 256, 81.92e-6),  # Green Bank drift scan
)
"""Receivers of other telescopes."""
