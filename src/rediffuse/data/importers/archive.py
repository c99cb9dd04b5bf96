"""Files of a folder or a zip archive, by their names; an archive is read in place and never unpacked."""

import zipfile
import zlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from rediffuse.errors import InvalidInput, say

LARGEST = 100
"""A member may unpack to at most so many times the size of its archive (MovieLens: up to 5 times) .."""
SPARE = 1 << 20
""".. or to so many bytes."""


@dataclass(frozen=True)
class Members:
    """The files that are there."""

    source: Path
    places: Mapping[str, tuple[str, ...]]
    """File name -> where it lies: in the folder itself; in an archive at the top or one folder deep."""

    @classmethod
    def of(cls, source: Path) -> Self:
        """List a folder or a zip archive. Raises: InvalidInput when it is neither."""
        if source.is_dir():
            return cls(source, {path.name: (path.name,) for path in sorted(source.iterdir()) if path.is_file()})
        if not source.is_file():
            raise InvalidInput(say(f"There is no file or folder {str(source)!r}"))
        try:
            with zipfile.ZipFile(source) as archive:
                names = [info.filename for info in archive.infolist() if not info.is_dir()]
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            raise InvalidInput(say(f"{source.name!r} is cut off or no zip archive", remedy="Fetch it again")) from None
        places: dict[str, tuple[str, ...]] = {}
        for name in names:
            if name.count("/") <= 1:
                base = name.rpartition("/")[2]
                places[base] = (*places.get(base, ()), name)
        return cls(source, places)

    def __contains__(self, name: object) -> bool:
        """Whether there is a file of that name."""
        return name in self.places

    @contextmanager
    def open(self, name: str) -> Generator[IO[bytes]]:
        """Read a file from its beginning.

        Raises: InvalidInput when it is not there, stands twice in the archive, is encrypted, unpacks to more than
            LARGEST times the archive, or is damaged (checked at its end, too).
        """
        if len(places := self.places.get(name, ())) != 1:
            problem = f"holds {len(places)} files" if places else "holds no file"
            raise InvalidInput(say(f"{self.source.name!r} {problem} {name!r}", got=", ".join(self.places)))
        try:
            if self.source.is_dir():
                with (self.source / name).open("rb") as file:
                    yield file
            else:
                with (
                    zipfile.ZipFile(self.source) as archive,
                    archive.open(self._checked(archive.getinfo(places[0]))) as file,
                ):
                    yield file
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise InvalidInput(
                say(f"{name!r} in {self.source.name!r} cannot be read", got=str(error), remedy="Fetch it again")
            ) from None

    def _checked(self, info: zipfile.ZipInfo) -> zipfile.ZipInfo:
        bound = max(SPARE, LARGEST * self.source.stat().st_size)
        if info.file_size > bound:
            raise InvalidInput(
                say(
                    f"{info.filename!r} in {self.source.name!r} unpacks to {info.file_size:,} bytes",
                    allowed=f"up to {bound:,}, {LARGEST} times the archive",
                    remedy="Fetch it again from its source",
                )
            )
        if info.flag_bits & 1:
            raise InvalidInput(say(f"{info.filename!r} in {self.source.name!r} is encrypted", remedy="Unpack it first"))
        return info
