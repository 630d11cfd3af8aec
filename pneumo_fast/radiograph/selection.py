"""Which radiographs are wanted, as far as a header tells; what it does not tell is no reason to refuse one."""

from __future__ import annotations

from dataclasses import dataclass

from pneumo_fast.errors import RejectedImageError
from pneumo_fast.radiograph.header import Header
from pneumo_fast.radiograph.metadata import body_part, modality, view
from pneumo_fast.vocabulary import BodyPart, Modality, View


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The modalities, views and body parts that are wanted."""

    modalities: tuple[Modality, ...]
    views: tuple[View, ...]
    body_parts: tuple[BodyPart, ...]

    def check(self, header: Header) -> None:
        """Refuse an object whose header says that it is of another kind.

        Modality ``OT`` (other) says nothing, as do values that are missing or unknown.

        Raises
        ------
        RejectedImageError
            ``other_modality``, ``other_body_part``, ``other_view``.
        """
        for reason, found, wanted in (
            ("other_modality", modality(header), (*self.modalities, "OT")),
            ("other_body_part", body_part(header), self.body_parts),
            ("other_view", view(header), self.views),
        ):
            if found and found not in wanted:
                raise RejectedImageError(reason, f"{found}, which is not among {', '.join(wanted)}")
