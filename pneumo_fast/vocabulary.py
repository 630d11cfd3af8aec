"""Words that several parts share: what an option can be, the splits, and what every part has to say."""

from __future__ import annotations

from typing import Final, Literal, get_args

Dtype = Literal["float16", "uint8"]
Layout = Literal["shards", "folder", "source"]
"""Where the pixels of a dataset are: in shards, in one file per image, or still in the source files."""
Ids = Literal["pseudonyms", "kept"]
Decode = Literal["fast", "exact", "gpu"]
"""How 8-bit JPEG is decoded: at reduced scale, in full, or in full by a GPU where there is one."""
Window = Literal["auto", "none"]
View = Literal["AP", "PA", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LATERAL", "OBLIQUE"]
"""Defined terms of View Position (PS3.3 C.8.1.1), and two words in use beside them."""
BodyPart = Literal[
    "ABDOMEN", "ANKLE", "BREAST", "CHEST", "CLAVICLE", "CSPINE", "ELBOW", "EXTREMITY", "FEMUR", "FOOT", "FOREARM",
    "HAND", "HEAD", "HIP", "HUMERUS", "KNEE", "LEG", "LSPINE", "NECK", "PELVIS", "RIB", "SHOULDER", "SKULL", "SPINE",
    "STERNUM", "THORAX", "TSPINE", "WRIST",
]  # fmt: skip
"""Terms of Body Part Examined that are let through (PS3.16 annex L)."""
Modality = Literal[
    "BI", "BMD", "CR", "CT", "DG", "DX", "ES", "GM", "IO", "IVOCT", "IVUS", "LS", "MG", "MR", "NM", "OP", "OPT", "OT",
    "PT", "PX", "RF", "RG", "RTDOSE", "RTIMAGE", "SEG", "SM", "TG", "US", "XA", "XC",
]  # fmt: skip
"""Defined terms of Modality whose objects have pixels (PS3.3 C.7.3.1.1.1)."""
WANTED_MODALITIES: Final[tuple[Modality, ...]] = ("CR", "DX", "RG")
WANTED_VIEWS: Final[tuple[View, ...]] = ("AP", "PA", "LLD", "RLD", "LLO", "RLO", "OBLIQUE")
"""All but the laterals."""
WANTED_BODY_PARTS: Final[tuple[BodyPart, ...]] = ("CHEST", "THORAX")
"""What is taken, with the two above, where nobody says otherwise."""
WarningKind = Literal["modality", "view", "body_part", "age", "aspect", "intensity", "burned_in"]
"""In what an image can be unlike those that a model was trained on; the last: text may be burned into its pixels."""
Match = Literal["filename", "path", "AccessionNumber", "SOPInstanceUID", "StudyInstanceUID"]
"""What a file and a row of the label table have in common."""
IdSource = Literal["filename", "AccessionNumber", "SOPInstanceUID", "StudyInstanceUID"]
"""What the id of a file that is scored is."""
Split = Literal["train", "val", "test"]
METHOD_NAMES: Final = {"gradcam": "Grad-CAM", "gradcam++": "Grad-CAM++", "hirescam": "HiResCAM"}
"""What people call each way to draw a heat map."""
TrainOrder = Literal["shuffle", "weighted", "windowed"]
OrderName = Literal["sequential", TrainOrder]
EngineName = Literal["auto", "dali", "fused", "resident", "source"]
Strength = Literal["light", "strong"]
Monitor = Literal["auroc", "ap", "loss", "accuracy"]
ExportFormat = Literal["onnx", "torch"]
ScheduleName = Literal["none", "cosine", "onecycle"]
AuxiliaryTask = Literal["boxes", "classes"]
"""What a model can be taught beside the label."""
RecipeName = Literal["reference", "recommended"]
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
SPLIT_NAMES: Final = {"train": "training", "val": "validation", "test": "test"}
"""What people call each split."""
IMAGE_IDS: Final[dict[Ids, str]] = {"pseudonyms": "pseudonyms", "kept": "as in the label table"}
"""What image ids are."""
REJECTS: Final = "rejects.csv"
"""Table of the files that could not be read, in a dataset and in a run."""
LARGEST_SIZE: Final = 4096
"""Pixels: most height and width of a stored image."""
MAX_PIXELS: Final = 64_000_000
"""Rows times columns of the largest image that is decoded, where nothing else is asked for."""
MANUFACTURER: Final = "pneumo-fast"
"""Of the DICOM objects that this package writes."""
NOT_CLINICAL: Final = "Research software: not for clinical use."


def counted(number: int, thing: str) -> str:
    """A number with its noun: ``1 image``, ``2,000 images``."""
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
