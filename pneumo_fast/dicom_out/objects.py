"""A Secondary Capture of the overlay, and a structured report (TID 1500) with the figures, in the source's study."""

from __future__ import annotations

import hashlib
import hmac
import io
from dataclasses import dataclass
from typing import Final

import highdicom as hd
import numpy as np
import pydicom
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from PIL import Image
from pydicom.sr.codedict import codes

from pneumo_fast import __version__
from pneumo_fast.dicom_out.source import OPTIONAL, Source
from pneumo_fast.vocabulary import MANUFACTURER, NOT_CLINICAL

DESCRIPTION: Final = "Pneumonia classifier, RESEARCH, NOT FOR CLINICAL USE"
CAPTURE_SERIES, REPORT_SERIES = 9901, 9902
"""Series numbers, above those of modalities."""
SCHEME: Final = "99PNEUMOFAST"
"""Our own coding scheme, for what no standard one has; :data:`CODES` lists its codes."""
CODES: Final = {
    "PROB": "Probability of pneumonia",
    "CALPROB": "Calibrated probability of pneumonia",
    "THRESHOLD": "Threshold on the probability",
    "CLASS": "Class at the threshold",
}
RATIO: Final = CodedConcept("1", "UCUM", "no units")
CHEST_X_RAY: Final = CodedConcept("399208008", "SCT", "Plain chest X-ray")
PNEUMONIA: Final = CodedConcept("233604007", "SCT", "Pneumonia")
POSITIVE: Final = CodedConcept("10828004", "SCT", "Positive")
NEGATIVE: Final = CodedConcept("260385009", "SCT", "Negative")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What is to be said of one image."""

    probability: float
    calibrated: float | None
    threshold: float
    """That makes it positive, on the probability."""
    model: str
    """Architecture, in words."""
    checksums: tuple[str, ...]
    """SHA-256 of each checkpoint."""
    scorer: str
    """What tells checkpoints, calibration and threshold together from others."""


def derived_uid(key: bytes, kind: str, source: Source, finding: Finding) -> str:
    """A UID (PS3.5 annex B.2) that the same image, scorer and key always give, so that nothing is stored twice."""
    text = "\0".join((kind, source.dataset.SOPInstanceUID, finding.scorer))
    return f"2.25.{int.from_bytes(hmac.new(key, text.encode(), hashlib.sha256).digest()[:16], 'big')}"


def make_capture(source: Source, finding: Finding, png: bytes, key: bytes) -> pydicom.Dataset:
    """The overlay, as a Secondary Capture image in colour."""
    with Image.open(io.BytesIO(png)) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    known = source.dataset
    made = hd.sc.SCImage(
        pixel_array=pixels,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=known.StudyInstanceUID,
        series_instance_uid=derived_uid(key, "capture series", source, finding),
        series_number=CAPTURE_SERIES,
        sop_instance_uid=derived_uid(key, "capture", source, finding),
        instance_number=1,
        manufacturer=MANUFACTURER,
        patient_id=known.PatientID,
        patient_name=known.PatientName,
        patient_birth_date=known.PatientBirthDate or None,
        patient_sex=known.PatientSex or None,
        accession_number=known.AccessionNumber,
        study_id=known.StudyID,
        study_date=known.StudyDate or None,
        study_time=known.StudyTime or None,
        referring_physician_name=known.ReferringPhysicianName,
        series_description=DESCRIPTION,
        software_versions=__version__,
        manufacturer_model_name=finding.model,
        specific_character_set="ISO_IR 192",
    )
    made.Laterality = ""  # a chest is not paired, but the standard asks for it here
    made.PatientOrientation = []  # two pictures beside each other
    made.BurnedInAnnotation = "NO"  # of the patient; the probability is
    made.DerivationDescription = f"Heat map over the source image. {NOT_CLINICAL}"
    made.SourceImageSequence = [_reference(source)]
    return _finish(made, source)


def make_report(source: Source, finding: Finding, key: bytes) -> pydicom.Dataset:
    """The figures, as an Enhanced SR by template TID 1500."""
    content = MeasurementReport(
        observation_context=_observer(finding),
        procedure_reported=CHEST_X_RAY,
        imaging_measurements=[_measurements(source, finding, key)],
    )
    made = EnhancedSR(
        evidence=[source.dataset],
        content=content[0],
        series_instance_uid=derived_uid(key, "report series", source, finding),
        series_number=REPORT_SERIES,
        sop_instance_uid=derived_uid(key, "report", source, finding),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=DESCRIPTION,
        software_versions=__version__,
        manufacturer_model_name=finding.model,
        specific_character_set="ISO_IR 192",
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, name="Codes of pneumo-fast", version=__version__)],
    )
    return _finish(made, source)


def _observer(finding: Finding) -> ObservationContext:
    """The model, as the device that observed."""
    device = DeviceObserverIdentifyingAttributes(
        uid=f"2.25.{int(hashlib.sha256(''.join(finding.checksums).encode()).hexdigest()[:32], 16)}",
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=finding.model,
    )
    return ObservationContext(
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    )


def _measurements(source: Source, finding: Finding, key: bytes) -> MeasurementsAndQualitativeEvaluations:
    """The figures of one image, and by which algorithm."""
    figures = {"PROB": finding.probability, "CALPROB": finding.calibrated, "THRESHOLD": finding.threshold}
    value = POSITIVE if finding.probability >= finding.threshold else NEGATIVE
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid(key, "finding", source, finding), identifier="Pneumonia, whole image"
        ),
        finding_type=PNEUMONIA,
        algorithm_id=AlgorithmIdentification(
            name=f"{MANUFACTURER} {finding.model}",
            version=__version__,
            parameters=[NOT_CLINICAL, *(f"checkpoint SHA-256 {checksum}" for checksum in finding.checksums)],
        ),
        measurements=[
            Measurement(name=_code(code), value=float(f"{figure:.6g}"), unit=RATIO)
            for code, figure in figures.items()
            if figure is not None
        ],
        qualitative_evaluations=[QualitativeEvaluation(name=_code("CLASS"), value=value)],
        source_images=[SourceImageForMeasurementGroup(source.dataset.SOPClassUID, source.dataset.SOPInstanceUID)],
    )


def _finish(made: pydicom.Dataset, source: Source) -> pydicom.Dataset:
    for keyword in OPTIONAL:
        if keyword in source.dataset:
            setattr(made, keyword, source.dataset[keyword].value)
    return made


def _code(value: str) -> CodedConcept:
    return CodedConcept(value, SCHEME, CODES[value])


def _reference(source: Source) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.ReferencedSOPClassUID = source.dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = source.dataset.SOPInstanceUID
    return item
