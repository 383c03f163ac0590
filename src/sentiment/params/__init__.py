"""`params.yaml`, typed and checked before the first byte of data is read."""

from sentiment.params.loading import load_params
from sentiment.params.root import Params

__all__ = ["Params", "load_params"]
