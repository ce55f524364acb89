"""Trajectories as users have them: files of several formats, tables, arrays, degrees or metres, dates or seconds."""

from zoo.inputs.tracks.files import FORMATS, detect, read_files
from zoo.inputs.tracks.plane import Projection
from zoo.inputs.tracks.reading import names_of, origin_of, pad_tracks, plane_of, read_tracks, tracks_of
from zoo.inputs.tracks.sieve import COUNTED, POLICIES, Sieve
from zoo.inputs.tracks.table import COLUMNS, Track, find_columns, from_columns, seconds_of, tidy

__all__ = [
    "COLUMNS",
    "COUNTED",
    "FORMATS",
    "POLICIES",
    "Projection",
    "Sieve",
    "Track",
    "detect",
    "find_columns",
    "from_columns",
    "names_of",
    "origin_of",
    "pad_tracks",
    "plane_of",
    "read_files",
    "read_tracks",
    "seconds_of",
    "tidy",
    "tracks_of",
]
