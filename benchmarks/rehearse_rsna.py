"""A rehearsal at the size of the complete RSNA set: its real tables and ids over a few real files, replicated.

    python benchmarks/rehearse_rsna.py --dicoms DIR --tables DIR --out FILE.json

Every id of the complete label table gets a hard link to one of the DICOM files, and all are converted in one go, split
by patient. The time is that of the complete set; the pixels, of course, are not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.convert_stage import link
from benchmarks.measure import surroundings
from pneumo_fast.conversion.convert import ConvertSummary, convert
from pneumo_fast.conversion.options import ConvertConfig

LABELS, CLASS_INFO, MAPPINGS = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv", "mappings.json"


def main() -> None:
    """Rehearse, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicoms", type=Path, required=True, help="folder of DICOM files")
    parser.add_argument("--tables", type=Path, required=True, help="folder of the complete tables")
    parser.add_argument("--out", type=Path, help="file for the figures (JSON)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pneumo-fast-rehearsal-") as temporary:
        work = Path(temporary)
        os.environ["XDG_CONFIG_HOME"] = str(work / "config")
        files = replicate_ids(arguments.dicoms, arguments.tables / LABELS, work / "images")
        summary = convert(
            ConvertConfig(
                images=work / "images",
                labels=arguments.tables / LABELS,
                class_info=arguments.tables / CLASS_INFO,
                groups=arguments.tables / MAPPINGS,
                out=work / "dataset",
            )
        )
    text = json.dumps({"surroundings": surroundings(), "rehearsal": figures(summary, files)})
    if arguments.out:
        arguments.out.write_text(text + "\n")
    print(text)


def replicate_ids(dicoms: Path, labels: Path, images: Path) -> int:
    """Link one of the files under each id of the table; returns how many files there are to link to."""
    files = sorted(dicoms.glob("*.dcm"))
    with labels.open(newline="") as table:
        ids = dict.fromkeys(row["patientId"] for row in csv.DictReader(table))
    images.mkdir()
    for number, image_id in enumerate(ids):
        link(files[number % len(files)], images / f"{image_id}.dcm")
    return len(files)


def figures(summary: ConvertSummary, files: int) -> dict[str, object]:
    """What a reader wants to know of the run."""
    manifest = summary.manifest
    return {
        "what": f"{summary.images} ids over {files} files (replicated), float16, 224 pixels, decode fast",
        "images": summary.images,
        "seconds": round(summary.seconds, 1),
        "images_per_s": round(summary.images / summary.seconds, 1),
        "counts": manifest.counts,
        "groups": manifest.split["groups"],
        "leaks": manifest.split["leaks"],
        "shards": len(manifest.shards),
        "gigabytes": round(sum(shard.bytes for shard in manifest.shards) / 1e9, 2),
    }


if __name__ == "__main__":
    main()
