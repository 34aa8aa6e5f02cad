"""The data card of a store on the Hugging Face hub: what it holds, its licence and its origin."""

from ...errors import InputError
from ..store import FeatureStore

CARD = "README.md"
_HUB_LICENCES = frozenset(
    ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit")
)
"""Names by which the hub knows licences; it refuses a card that names another one in its head."""


def require_terms(store: FeatureStore, url: str) -> None:
    """Refuse to bring a store without licence and origin to where strangers may find it.

    Raises:
        InputError: one of them is missing.
    """
    missing = [name for name in ("licence", "origin") if not getattr(store.terms, name)]
    if missing:
        raise InputError(
            f"{store.path}: nobody has said the {' and the '.join(missing)} of its videos and labels",
            wanted="both, for the data card: may you share features of these videos?",
            cure=f"bas cache push {store.path} {url} --licence TEXT --origin TEXT",
        )


def data_card(store: FeatureStore, url: str) -> bytes:
    """The card as Markdown with the hub's head."""
    settings, terms = store.settings, store.terms
    name = terms.licence.lower()
    weights = f"{settings.weights} ({terms.weights_licence or 'licence not known'})"
    rows = {
        "licence": terms.licence,
        "origin of videos and labels": terms.origin,
        "backbone": settings.backbone,
        "weights": store.origin.describe() if store.origin and store.origin.is_run else weights,
        "channels": settings.dim,
        "rows a second": settings.fps,
        "classes of the labels": ", ".join(store.classes) or "none",
    }
    lines = [f"| {what} | {' '.join(str(value).split()).replace('|', '/')} |" for what, value in rows.items()]
    licence = name if name in _HUB_LICENCES else "other"
    head = ["---", f"license: {licence}", "tags: [action-spotting, video-features]", "---"]
    about = ["# Video features", "", "One row of features per frame, no pictures. Made and read by bas:", ""]
    how = ["```sh", f"bas cache pull {url} features.zarr", "```", "", "| | |", "|---|---|"]
    return "\n".join([*head, "", *about, *how, *lines, ""]).encode()
