"""Puts names of neurons into a bundle that is there."""

from __future__ import annotations

from konkyo.export.folder import write_card
from konkyo.models.bundle import NEURONS, Bundle, describe_file, read_bundle
from konkyo.models.neurons import Neurons


def write_neurons(bundle: Bundle, neurons: Neurons) -> Bundle:
    """Write ``neurons.json`` into a bundle, in the place of an older one, and return it as read back.

    Whoever reads the bundle meanwhile finds it whole: without names, or with them.

    Raises:
        BundleError: the bundle was damaged meanwhile.
        OSError: the folder cannot be written.
    """
    files = {name: entry for name, entry in bundle.card.files.items() if name != NEURONS}
    if NEURONS in bundle.card.files:  # no card may name the old file once the new one is in its place
        write_card(bundle.path, bundle.card.model_copy(update={"files": files}))
    scratch = bundle.path / f".{NEURONS}"
    scratch.write_text(neurons.model_dump_json(indent=2) + "\n", encoding="utf-8")
    scratch.replace(bundle.path / NEURONS)
    files[NEURONS] = describe_file(bundle.path / NEURONS)
    write_card(bundle.path, bundle.card.model_copy(update={"files": files}))
    return read_bundle(bundle.path)
