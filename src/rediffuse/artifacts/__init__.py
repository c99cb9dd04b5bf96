"""A trained model on disk: a folder of data, verified before use."""

from rediffuse.artifacts.model_folder import FORMAT_VERSION, ModelFolder, read_model, write_model

__all__ = ["FORMAT_VERSION", "ModelFolder", "read_model", "write_model"]
