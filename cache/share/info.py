"""What a shared store holds, from its manifests: nothing of its rows travels."""

from pathlib import Path

from ..match import MatchLine, StoreInfo
from ..store import FeatureStore
from .manifest import MatchManifest
from .place import Place
from .source import PlaceSource


def shared_info(place: Place) -> StoreInfo:
    """The table of `bas cache info`.

    Raises:
        InputError: no store there, or it is damaged.
    """
    source = PlaceSource(place)
    store = FeatureStore.of_record(Path(place.url), source.record())
    fps = store.settings.fps_fraction
    lines = (_line(each, None if fps is None else float(fps)) for each in source.manifests())
    return StoreInfo(
        store.settings.to_json(),
        store.settings.key(),
        store.classes,
        store.software,
        store.origin.to_json() if store.origin else None,
        tuple(sorted(lines, key=lambda line: line.match)),
    )


def _line(manifest: MatchManifest, fps: float | None) -> MatchLine:
    return MatchLine(
        match=manifest.match_id,
        split=manifest.split or "",
        rows=manifest.num_rows,
        minutes=None if fps is None else manifest.num_rows / fps / 60,
        events=manifest.num_events,
        views=manifest.views,
        megabytes=manifest.num_bytes / 1e6,
        invalid_share=None,
    )
