"""Flower app bundles (FAB): the one reader that hub, sites and aggregators share."""

from syftmesh_core.bundle.archive import MAX_FILES, MAX_UNPACKED_BYTES
from syftmesh_core.bundle.bundle import Bundle, read_bundle
from syftmesh_core.bundle.config import ConfigValue, fused_config
from syftmesh_core.bundle.manifest import MANIFEST, MAX_MANIFEST_BYTES, parse_manifest
from syftmesh_core.bundle.refusal import MAX_BUNDLE_BYTES, bundle_invalid, bundle_too_large

__all__ = [
    "MANIFEST",
    "MAX_BUNDLE_BYTES",
    "MAX_FILES",
    "MAX_MANIFEST_BYTES",
    "MAX_UNPACKED_BYTES",
    "Bundle",
    "ConfigValue",
    "bundle_invalid",
    "bundle_too_large",
    "fused_config",
    "parse_manifest",
    "read_bundle",
]
