"""Which instances of a DICOMweb server match a query (QIDO-RS, PS3.18 10.6), page by page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import requests
from dicomweb_client.web import DICOMwebClient

from pneumo_fast.errors import PacsError
from pneumo_fast.vocabulary import MANUFACTURER

PAGE: Final = 500
"""Matches that are asked for at once."""
MOST_INSTANCES: Final = 100_000
UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MODALITY, ACCESSION, MAKER = "00080060", "00080050", "00080070"
FIELDS: Final = ("Modality", "AccessionNumber", "Manufacturer")
"""What the server is asked to say, besides what it has to."""
NOT_RELATIONAL: Final = frozenset({400, 404, 405, 501})
"""Status codes of a server that searches for instances in one series alone."""
OF_SERIES: Final = frozenset({
    "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "BodyPartExamined", MODALITY, SERIES,
})  # fmt: skip
OF_INSTANCES: Final = frozenset({"SOPClassUID", "SOPInstanceUID", "InstanceNumber", "00080016", INSTANCE})
OF_STUDIES: Final = frozenset({"ModalitiesInStudy", "00080061"})
"""Keys of a query that only a search for studies knows."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Instance:
    """What a server says of an instance."""

    study: str
    """Study Instance UID, of digits and points as the two below: what a server says becomes no other path."""
    series: str
    uid: str
    modality: str
    accession: str
    is_result: bool
    """Whether this package made it."""


class Search:
    """Asks one server."""

    def __init__(self, client: DICOMwebClient, host: str) -> None:
        self._client, self._host = client, host

    def check(self) -> None:
        """Ask for next to nothing; PacsError if the server does not answer."""
        with self._answering():
            self._client.search_for_studies(limit=1)

    def instances(self, query: Mapping[str, str]) -> list[Instance]:
        """The instances that match, each once, in order of their UIDs.

        Parameters
        ----------
        query : mapping
            Values by keyword or tag. Where the server does not search for instances of all studies, or a key is one of
            studies alone, it is asked for studies, their series, and their instances in turn.

        Raises
        ------
        PacsError
            If the server refuses, does not answer, or answers with what it must not; if too many instances match.
        """
        if not query.keys() & OF_STUDIES:
            try:
                with self._answering(NOT_RELATIONAL):
                    return sorted(map(self._instance, self._pages(self._client.search_for_instances, INSTANCE, query)))
            except requests.HTTPError:
                pass
        with self._answering():
            return sorted(map(self._instance, self._downwards(query)))

    def _downwards(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """What is said of the instances that match, by way of their studies and series."""
        of_series, of_instances = (
            {name: query[name] for name in query.keys() & of} for of in (OF_SERIES, OF_INSTANCES)
        )
        of_studies = {name: query[name] for name in query.keys() - OF_SERIES - OF_INSTANCES}
        found: list[dict[str, Any]] = []
        for study in self._pages(self._client.search_for_studies, STUDY, of_studies):
            uid = self._uid(study, STUDY)
            for series in self._pages(self._client.search_for_series, SERIES, of_series, uid):
                uids = uid, self._uid(series, SERIES)
                matches = self._pages(self._client.search_for_instances, INSTANCE, of_instances, *uids)
                found += [{**study, **series, **match} for match in matches]
                self._check_count(len(found))
        return found

    def _pages(
        self, search: Callable[..., Any], key: str, query: Mapping[str, str], *uids: str
    ) -> list[dict[str, Any]]:
        """All matches, each once by the UID of the tag ``key``, whatever the server makes of limit and offset."""
        found: dict[str, dict[str, Any]] = {}
        asked = 0
        while True:
            page = search(*uids, limit=PAGE, offset=asked, fields=FIELDS, search_filters=dict(query))
            if not isinstance(page, list) or not all(isinstance(match, dict) for match in page):
                raise self._no_json()
            new = {uid: match for match in page if (uid := self._uid(match, key)) not in found}
            if not new:
                if len(page) == PAGE:
                    raise PacsError(
                        f"{self._host} gives its first {PAGE} matches again and no others: narrow the query"
                    )
                return list(found.values())
            found |= new
            asked += len(page)
            self._check_count(len(found))

    def _check_count(self, count: int) -> None:
        if count > MOST_INSTANCES:
            raise PacsError(f"{self._host}: more than {MOST_INSTANCES:,} matches: narrow the query")

    def _uid(self, match: Mapping[str, Any], tag: str) -> str:
        uid = first_value(match, tag)
        if not isinstance(uid, str) or len(uid) > 64 or not UID.fullmatch(uid):
            raise PacsError(
                f"{self._host} answers a query with a UID that is none ({tag}): have it mended, or narrow the query"
            )
        return uid

    def _instance(self, match: Mapping[str, Any]) -> Instance:
        modality, accession = first_value(match, MODALITY), first_value(match, ACCESSION)
        return Instance(
            study=self._uid(match, STUDY),
            series=self._uid(match, SERIES),
            uid=self._uid(match, INSTANCE),
            modality=modality if isinstance(modality, str) else "",
            accession=accession.strip() if isinstance(accession, str) else "",
            is_result=first_value(match, MAKER) == MANUFACTURER,
        )

    @contextmanager
    def _answering(self, passing: frozenset[int] = frozenset()) -> Iterator[None]:
        """Turn what is no answer into one line of our own; a status code that passes stays an HTTPError."""
        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in passing:
                raise
            raise PacsError(
                f"{self._host} refuses the query (HTTP status {status}): is this its DICOMweb address?"
            ) from None
        except (requests.RequestException, ValueError, RecursionError):
            raise self._no_json() from None

    def _no_json(self) -> PacsError:
        return PacsError(f"{self._host} answers a query with what is no DICOM JSON: is this its DICOMweb address?")


def first_value(match: Mapping[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM JSON (PS3.18 F.2); None where there is none."""
    element = match.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None
