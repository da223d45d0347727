"""The logging of a serving process: a level and a format, or the user's configuration file."""

import json
import logging
import tomllib
from dataclasses import dataclass
from pathlib import Path

from duck.contrib.websockets.logging import access_logger

from ..errors import ServingError

__all__ = ["LogConfigError", "LogOptions"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FORMAT_OF_MANY = "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"


class LogConfigError(ServingError):
    """A file contains no valid logging configuration."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The logging options. All values can be pickled, for worker processes.

    Attributes:
        level: The lowest level; None for "info", or for the level in the file.
        access: Whether requests are logged, at any level; None for False, or for the file's setting.
        file: The path of a configuration for `logging.config`: JSON or TOML for its `dictConfig`, or else INI for its
            `fileConfig`.
        of_many: Whether several processes write to one log. The default format then includes the process.
    """

    level: str | None = None
    access: bool | None = None
    file: str | None = None
    of_many: bool = False

    def apply(self) -> None:
        """Configures the logging of this process.

        Raises:
            LogConfigError: The file cannot be used.
        """
        if self.file is None:
            level = (self.level or "info").upper()
            logging.basicConfig(level=level, format=_FORMAT_OF_MANY if self.of_many else _FORMAT)
        else:
            try:
                _configure(Path(self.file))
            except Exception as error:
                raise LogConfigError(
                    f"cannot configure logging by {self.file}: {_words(error)}; give a .json or .toml file for"
                    " logging.config.dictConfig, or an INI file for logging.config.fileConfig"
                ) from error
            if self.level is not None:
                logging.getLogger().setLevel(self.level.upper())
        if self.access is not None or self.file is None:
            access_logger.setLevel(logging.INFO if self.access else logging.CRITICAL)


def _words(error: BaseException | None) -> str:
    """Describes an error with those that have caused it: the first one of `dictConfig` just names a handler."""
    words: list[str] = []
    while error is not None:
        text = " ".join(str(error).split())
        if not (words and words[-1].endswith(text)):
            words.append(text)
        error = error.__cause__
    return ": ".join(words)


def _configure(path: Path) -> None:
    from logging import config

    text = path.read_text(encoding="utf-8")
    if path.suffix in (".json", ".toml"):
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        config.dictConfig({"disable_existing_loggers": False, **table})
    else:
        config.fileConfig(path, disable_existing_loggers=False)
