"""Label tables: what the complete tables hold, what is refused with which words, and what is understood."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pneumo_fast.conversion.labels import BOX, LabelTable, read_labels
from pneumo_fast.conversion.options import LabelRule
from pneumo_fast.errors import ConfigError, LabelError
from tests.support.strategies import IN_PLACE

RSNA = "patientId,x,y,width,height,Target\n"
PLAIN = "patientId,Target\n"


def read(folder: Path, text: str | bytes, **options: Any) -> LabelTable:
    path = folder / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path, **options)


# ---- the complete tables


@pytest.fixture(scope="module")
def rsna(shared_data: Path) -> LabelTable:
    tables = shared_data / "rsna_tables"
    return read_labels(
        tables / "stage_2_train_labels.csv",
        class_info=tables / "stage_2_detailed_class_info.csv",
        groups=tables / "mappings.json",
    )


def test_complete_tables(rsna: LabelTable) -> None:
    assert len(rsna.images) == rsna.images["image_id"].nunique() == 26_684
    assert rsna.images["label"].sum() == 6_012
    assert len(rsna.boxes) == 9_555
    assert (rsna.images["group"] == "").sum() == 98
    assert rsna.group_source == "mapping"


def test_complete_tables_agree_with_each_other(rsna: LabelTable) -> None:
    positive = rsna.images["label"] == 1
    assert ((rsna.images["class"] == "Lung Opacity") == positive).all()
    assert set(rsna.boxes["image_id"]) == set(rsna.images["image_id"][positive])
    assert Counter(rsna.boxes["image_id"].value_counts()) == {1: 2_614, 2: 3_266, 3: 119, 4: 13}


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "options", "line", "column", "found"),
    [
        (PLAIN + "a,0\nb,1\na,1\n", {}, 4, "Target", "not the same as in line 2"),
        (PLAIN + "a,0\nb,2\n", {}, 3, "Target", "'2' found, 0 or 1"),
        (PLAIN + "a,\n", {}, 2, "Target", "an empty cell found, 0 or 1 expected; --ignore '' leaves such rows out"),
        (PLAIN + "a,nan\n", {}, 2, "Target", "'nan' found, 0 or 1"),
        ("id,ill\na,yes\n", {"id_column": "id", "label": LabelRule(column="ill")}, 2, "ill", "'yes'"),
        (PLAIN + "a,0\n../x,0\n", {}, 3, "patientId", "a text of 4 characters found, an id of 1 to 200 bytes without"),
        (PLAIN + "/etc/x,0\n", {}, 2, "patientId", "a text of 6 characters found, an id of 1 to 200 bytes without"),
        (PLAIN + "a\0b,0\n", {}, 2, "patientId", r"'a\x00b' found, an id of 1 to 200 bytes without"),
        (PLAIN + "a\\b,0\n", {}, 2, "patientId", "an id of 1 to 200 bytes without / and"),
        (PLAIN + '"a\nb",0\n', {}, 2, "patientId", "an id of 1 to 200 bytes without / and"),
        (PLAIN + ",0\n", {}, 2, "patientId", "an empty cell found, an id of 1 to 200 bytes without"),
        (PLAIN + "..,0\n", {}, 2, "patientId", "'..' found, an id of 1 to 200 bytes without"),
        (PLAIN + "é" * 101 + ",0\n", {}, 2, "patientId", "1 to 200 bytes"),
        (PLAIN + "\n\na,0\n\nb,7\n", {}, 6, "Target", "'7' found"),
        (RSNA + "a,1,2,3,4,1\nb,1,2,3,4,0\n", {}, 3, "x", "no box on an image whose label is 0"),
        (RSNA + "a,1,2,3,,1\n", {}, 2, "height", "an empty cell found, a number of pixels, above 0"),
        (RSNA + "a,1,2,0,4,1\n", {}, 2, "width", "'0' found, a number of pixels, above 0"),
        (RSNA + "a,-1,2,3,4,1\n", {}, 2, "x", "'-1' found, a number of pixels, at least 0"),
        (RSNA + "a,1,inf,3,4,1\n", {}, 2, "y", "'inf' found, a number"),
        (RSNA + "a,1,two,3,4,1\n", {}, 2, "y", "'two' found, a number"),
        ("patientId,Target,p\na,0,x\na,0,y\n", {"group_column": "p"}, 3, "p", "not the same as in line 2"),
        ("f,Target\na,0\n../b,0\n", {"path_column": "f"}, 3, "f", "a text of 4 characters found, a path below"),
        ("f,Target\n/b,0\n", {"path_column": "f"}, 2, "f", "'/b' found, a path below the images"),
        ("f,Target\na,0\n.x,0\n", {"path_column": "f"}, 3, "f", "an id of 1 to 200 bytes without / and"),
        ("f,Target\na/b,0\na__b,0\n", {"path_column": "f"}, 3, "f", "not the same as in line 2"),
        ("patientId,f,Target\na,x,0\nb,x,1\n", {"path_column": "f"}, 3, "Target", "not the same as in line 2"),
    ],
)  # fmt: skip
def test_bad_cells_are_named(
    tmp_path: Path, text: str, options: dict[str, Any], line: int, column: str, found: str
) -> None:
    with pytest.raises(LabelError) as error:
        read(tmp_path, text, **options)
    assert str(error.value).startswith(f"table {tmp_path / 'labels.csv'}, line {line}, column {column!r}: ")
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        pytest.param(PLAIN, {}, "has no rows", id="empty"),
        pytest.param(PLAIN + "\n,\n", {}, "has no rows", id="empty-rows"),
        pytest.param("", {}, "cannot be read .No columns", id="no-bytes"),
        pytest.param("id,Target\na,0\n", {}, "columns are id, Target; name .* with --id-column", id="no-id"),
        pytest.param("id|Target\na|0\n", {}, "one column is id.Target, since no comma, semicolon or tab", id="bars"),
        pytest.param("patientId\na\n", {}, "no column 'Target'.*with --label-column", id="no-label"),
        pytest.param(PLAIN + "a,0\n", {"group_column": "p"}, "no column 'p'.*--group-column", id="no-group"),
        pytest.param(PLAIN + "a,0\n", {"path_column": "f"}, "no column 'f'.*--path-column", id="no-path"),
        pytest.param(
            "patientId,Target,Target\na,0,1\n", {}, "columns 2 and 3 have one name: keep", id="one-name-twice"
        ),
        pytest.param(PLAIN + "a,0,\nb,1,\n", {}, "line 2: more cells than the header", id="surplus-cells"),
        pytest.param(PLAIN + "a,0\nb,1,\n", {}, "csv, line 3: 3 cells, but .* have 2; each", id="one-surplus-cell"),
        pytest.param(PLAIN + '"a,0\n', {}, r"cannot be read \(EOF inside string", id="open-quote"),
        pytest.param(b"\x80\xff", {}, "cannot be read .*must be CSV in UTF-8", id="binary"),
        pytest.param(b"PK\3\4\x80", {}, "is an Excel workbook or a ZIP archive: save it as CSV UTF-8", id="xlsx"),
        pytest.param(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", {}, "is an Excel workbook", id="xls"),
        pytest.param(
            PLAIN + "a,0\n", {"group_column": "Target", "groups": Path("m.json")}, "not from both", id="two-groups"
        ),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str | bytes, options: dict[str, Any], words: str) -> None:
    with pytest.raises(LabelError, match=words):
        read(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("name", "words"),
    [("missing.csv", "missing.csv does not exist: name a CSV file$"), (".", r"cannot be read \(it is a folder\):")],
)
def test_unreadable_table(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        read_labels(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read"),
        (b"\xff", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{}", "entry 0: no subset_img_id"),
        ('[{"subset_img_id": "a", "img_id": "00000001_000.png"}, 5]', "entry 1: no subset_img_id"),
        ('[{"subset_img_id": "a"}]', "entry 0: no subset_img_id and img_id"),
        ('[{"subset_img_id": "a", "img_id": "1_000.png"}]', "entry 0, img_id: it does not begin"),
        (
            '[{"subset_img_id": "a", "img_id": "00000001_0"}, {"subset_img_id": "a", "img_id": "00000002_0"}]',
            "entry 1: its image has another patient",
        ),
    ],
)  # fmt: skip
def test_bad_groups_files_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    mapping = tmp_path / "m.json"
    mapping.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LabelError, match=words):
        read(tmp_path, PLAIN + "a,0\n", groups=mapping)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("patientId\na\n", "no column 'class'"),
        ("patientId,class\na,Normal\na,Lung Opacity\n", "line 3, column 'class': not the same as in line 2"),
    ],
)
def test_bad_class_tables_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(LabelError, match=words):
        read(tmp_path, PLAIN + "a,0\n", class_info=tmp_path / "classes.csv")


@IN_PLACE
@given(st.binary(max_size=40) | st.text('ab01,"\n\r\\/.', max_size=40).map(lambda rows: (PLAIN + rows).encode()))
@example((RSNA + "a,,,,,\n").encode())
def test_any_bytes_are_read_or_refused(tmp_path: Path, data: bytes) -> None:
    with contextlib.suppress(LabelError):
        assert set(read(tmp_path, data).images["label"]) <= {0, 1}


# ---- what is understood


@pytest.mark.parametrize(
    ("text", "ids", "labels"),
    [
        pytest.param(PLAIN + "b,1\na,0\nb,1\n", ["b", "a"], [1, 0], id="first-row-orders"),
        pytest.param("\ufeff" + PLAIN + "a,1\n", ["a"], [1], id="byte-order-mark"),
        pytest.param(PLAIN.replace("\n", "\r\n") + "a,1.0\r\nb, 0\r\n", ["a", "b"], [1, 0], id="windows"),
        pytest.param(PLAIN + "NA,0\nnan,1\n007,1\n1.50,0\n", ["NA", "nan", "007", "1.50"], [0, 1, 1, 0], id="text-ids"),
        pytest.param(PLAIN + "a.b c,0\nü,1\n\n", ["a.b c", "ü"], [0, 1], id="odd-names"),
    ],
)  # fmt: skip
def test_rows_become_images(tmp_path: Path, text: str, ids: list[str], labels: list[int]) -> None:
    images = read(tmp_path, text).images
    assert images["image_id"].tolist() == ids
    assert images["label"].tolist() == labels
    assert (images[["group", "class"]] == "").all(axis=None)


def test_boxes_have_a_table_of_their_own(tmp_path: Path) -> None:
    table = read(tmp_path, RSNA + "a,1,2,3,4,1\nb,,,,,0\na,0,0.5,1e2,4,1\nc,,,,,1\n")
    assert table.images["image_id"].tolist() == ["a", "b", "c"]
    assert table.boxes["image_id"].tolist() == ["a", "a"]
    assert table.boxes[BOX].to_numpy().tolist() == [[1, 2, 3, 4], [0, 0.5, 100, 4]]


def test_table_without_boxes(tmp_path: Path) -> None:
    boxes = read(tmp_path, PLAIN + "a,1\n").boxes
    assert list(boxes) == ["image_id", *BOX]
    assert boxes.empty


def test_other_tables_name_their_columns(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        "who,ill,id\nann,1,a\nbob,0,b\n,0,c\n",
        id_column="id",
        label=LabelRule(column="ill"),
        group_column="who",
    )
    assert table.images["group"].tolist() == ["ann", "bob", ""]
    assert table.images["label"].tolist() == [1, 0, 0]
    assert table.group_source == "column"


def test_a_patient_is_known_by_what_is_not_blank(tmp_path: Path) -> None:
    """An export may pad to an even length, as DICOM does."""
    images = read(tmp_path, "patientId,Target,p\na,0,P1\nb,1,P1 \nc,0, \nd,0,\n", group_column="p").images
    assert images["group"].tolist() == ["P1", "P1", "", ""]


def test_paths_give_ids(tmp_path: Path) -> None:
    images = read(tmp_path, "f,Target\np1/s.2/v.png,1\nx,0\n", path_column="f").images
    assert images["image_id"].tolist() == ["p1__s.2__v", "x"]
    assert images["path"].tolist() == ["p1/s.2/v.png", "x"]


def test_paths_beside_ids(tmp_path: Path) -> None:
    images = read(tmp_path, "patientId,f,Target\na,p/1.dcm,1\n", path_column="f").images
    assert images[["image_id", "path"]].to_numpy().tolist() == [["a", "p/1.dcm"]]


def test_groups_and_classes_by_id(tmp_path: Path) -> None:
    (tmp_path / "classes.csv").write_text("patientId,class\nb,Normal\nb,Normal\nz,Normal\n")
    (tmp_path / "m.json").write_text(json.dumps([{"subset_img_id": "a", "img_id": "00001323_001.png"}]))
    images = read(
        tmp_path, PLAIN + "a,1\nb,0\n", class_info=tmp_path / "classes.csv", groups=tmp_path / "m.json"
    ).images
    assert images["group"].tolist() == ["00001323", ""]
    assert images["class"].tolist() == ["", "Normal"]


def test_groups_of_other_images_leave_all_ungrouped(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("[]")
    table = read(tmp_path, PLAIN + "a,1\nb,0\n", groups=tmp_path / "m.json")
    assert table.images["group"].tolist() == ["", ""]
    assert table.group_source == "mapping"


PLAIN_IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="/\\"), min_size=1)


@IN_PLACE
@given(
    st.dictionaries(
        PLAIN_IDS.filter(lambda i: i not in {".", ".."} and len(i.encode()) <= 200), st.booleans(), min_size=1
    )
)
def test_any_plain_ids_come_through(tmp_path: Path, labels: dict[str, bool]) -> None:
    rows = pd.DataFrame({"patientId": list(labels), "Target": [int(label) for label in labels.values()]})
    images = read(tmp_path, rows.to_csv(index=False, quoting=1)).images
    assert dict(zip(images["image_id"], images["label"] == 1, strict=True)) == labels


# ---- delimiters and encodings

TABLE = pd.DataFrame(
    {"patientId": ["a", "b"], "Target": ["0", "1"], "who, or what": ["x;y", "p"], "x": ["", "1"], "y": ["", "2"],
     "width": ["", "3"], "height": ["", "4"]}
)  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiter_and_encoding_are_told(delimiter: str, encoding: str, end: str, tmp_path: Path) -> None:
    data = TABLE.to_csv(sep=delimiter, index=False, lineterminator=end).encode(encoding)
    found = read(tmp_path, data, group_column="who, or what")
    assert found.images["image_id"].tolist() == ["a", "b"]
    assert found.images["group"].tolist() == ["x;y", "p"]
    assert found.boxes[BOX].to_numpy().tolist() == [[1, 2, 3, 4]]


def test_a_delimiter_that_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="',' and ';' both divide its header: keep one delimiter"):
        read(tmp_path, "patientId,Target;who\na,0;x\n")


def test_big_endian_text_is_read(tmp_path: Path) -> None:
    data = codecs.BOM_UTF16_BE + (PLAIN + "ä,1\n").encode("utf-16-be")
    assert read(tmp_path, data).images["image_id"].tolist() == ["ä"]


# ---- what labels mean


@pytest.mark.parametrize(
    ("cells", "rule", "labels", "ignored"),
    [
        (["yes", "no"], {"positive": ("yes",), "negative": ("no",)}, [1, 0], 0),
        (["yes", "no", "maybe"], {"positive": ("yes",)}, [1, 0, 0], 0),
        (["1.0", "0.0", "-1.0", ""], {"ignore": ("-1", "")}, [1, 0], 2),
        (["Pneumonia|Edema", "No Finding", "Edema"], {"positive": ("Pneumonia",)}, [1, 0, 0], 0),
        (["Pneumonia", "Edema|Pneumonia"], {"positive": ("Pneumonia",), "ignore": ("Edema",)}, [1], 1),
        ([" 2 ", "3"], {"positive": ("2.0",)}, [1, 0], 0),
        (["48600011", "48600012"], {"positive": ("48600011",)}, [1, 0], 0),
        (["0.25", "0.5"], {"positive": ("0.25",)}, [1, 0], 0),
    ],
)
def test_values_are_given_a_meaning(
    cells: list[str], rule: dict[str, tuple[str, ...]], labels: list[int], ignored: int, tmp_path: Path
) -> None:
    rows = "".join(f"i{number},{cell}\n" for number, cell in enumerate(cells))
    found = read(tmp_path, PLAIN + rows, label=LabelRule(**rule))  # type: ignore[arg-type]
    assert found.images["label"].tolist() == labels
    assert len(found.left_out) == ignored


def test_a_value_need_not_occur_where_a_table_is_of_some_images_alone(tmp_path: Path) -> None:
    found = read(tmp_path, PLAIN + "a,no\n", label=LabelRule(positive=("yes",), ignore=("uncertain",)))
    assert found.images["label"].tolist() == [0]


@pytest.mark.parametrize(
    ("text", "rule", "words"),
    [
        (
            "a,perhaps\n",
            {"positive": ("yes",), "negative": ("no",)},
            "7 characters found, yes or no expected",
        ),
        ("a,0|1\n", {}, "'0|1' found, 0 or 1 expected; name other labels with --positive, --negative, --ignore"),
        ("a,1|x\n", {"negative": ("no",)}, "'1|x' found, 1 or no expected"),
        ("a,y|n\n", {"positive": ("y",), "negative": ("n",)}, "'y|n' found, y or n expected"),
        ("a,-1\n", {"ignore": ("-1",)}, "every row is ignored"),
        (
            "a,Yes\nb,No\n",
            {"positive": ("yes",), "all_occur": True},
            "column 'Target': no cell is 'yes': correct or omit --positive",
        ),
        (
            "a,1\nb,0\n",
            {"ignore": ("2",), "all_occur": True},
            "column 'Target': no cell is '2': correct or omit --ignore",
        ),
        ("a,1\na,-1\n", {"ignore": ("-1",)}, "all rows of an image must agree"),
    ],
)
def test_labels_without_a_meaning(text: str, rule: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=words.replace("|", r"\|")):
        read(tmp_path, PLAIN + text, label=LabelRule(**rule))


def test_a_value_has_one_meaning() -> None:
    with pytest.raises(ConfigError, match="label value '1' is both positive and ignored: give it one meaning"):
        LabelRule(positive=("1",), ignore=("1.0",))


@pytest.mark.parametrize(
    "first", ["Doe^Jane,0", "Doe;0", "MRN123456,Pneumonia", "000db696,1", "1954-03-02,yes", "jane@home,yes"]
)
def test_a_table_without_a_header_is_not_quoted(tmp_path: Path, first: str) -> None:
    (tmp_path / "t.csv").write_text(f"{first}\nx,1\n")
    with pytest.raises(
        LabelError, match="has no column 'patientId', and its first line seems to be no header"
    ) as error:
        read_labels(tmp_path / "t.csv")
    assert re.split("[,;]", first)[0] not in str(error.value)
