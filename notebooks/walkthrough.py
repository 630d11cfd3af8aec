# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From radiographs to an evaluated classifier
#
# This notebook takes a folder of chest radiographs and a label table, trains a classifier of
# pneumonia, evaluates it, and scores new files. It needs no data: it makes 400 synthetic radiographs
# and runs in about a minute on two CPU cores. For the RSNA Pneumonia Detection Challenge, change
# `DATA` in the first cell.
#
# **Research software: not for clinical use.**
#
# To open it, from a checkout after `scripts/environment`: choose `.venv` as its kernel in an editor
# that opens notebooks, or
#
#     .venv/bin/pip install jupyterlab
#     .venv/bin/jupyter lab notebooks/walkthrough.ipynb
#
# `walkthrough.py` beside it is the same as a script. What it writes lies in the folder `walkthrough`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import pneumo_fast as pf

OUT = Path("walkthrough")
DATA = OUT / "phantoms"  # for the challenge: Path("../rsna"), where scripts/download_rsna puts it
SIZE = 64  # pixels; for radiographs of people 224, with a GPU
EPOCHS = 4

if DATA == OUT / "phantoms":
    pf.make_phantoms(pf.PhantomConfig(out=DATA, count=400))
images = DATA / "stage_2_train_images"
labels = pd.read_csv(DATA / "stage_2_train_labels.csv")
labels.head()

# %% [markdown]
# ## Look at images and boxes
#
# A row of the table is a box around an opacity, or an image without one. `Target` is 1 where there is
# a box. An image with two boxes has two rows.

# %%
labels.groupby("patientId")["Target"].max().value_counts()


# %%
def draw(axes, image_id, target, size=224):
    """Draw an image as it is stored, with its boxes."""
    radiograph = pf.read_radiograph(images / f"{image_id}.dcm", size)
    axes.imshow(radiograph.pixels, cmap="gray", vmin=0, vmax=1)
    scale = size / radiograph.metadata.height  # these images are square
    for box in labels[(labels["patientId"] == image_id) & (labels["Target"] == 1)].itertuples():
        corner, width, height = (box.x * scale, box.y * scale), box.width * scale, box.height * scale
        axes.add_patch(plt.Rectangle(corner, width, height, fill=False, color="orange"))
    axes.set_title(f"{'opacity' if target else 'no opacity'}, {radiograph.metadata.view or 'unknown view'}")
    axes.axis("off")


examples = labels.drop_duplicates("patientId").groupby("Target").head(4).sort_values("Target", ascending=False)
figure, panels = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
for axes, row in zip(panels.flat, examples.itertuples(), strict=True):
    draw(axes, row.patientId, row.Target)

# %% [markdown]
# ## Convert
#
# Each file is read once and stored small, so that training never waits for it. The mapping file says
# which images are of the same patient: no patient may be in two splits, or the figures come out too
# good. `keep_ids` is right here, as these ids are random; other ids are best left as pseudonyms.

# %%
dataset_path = OUT / "dataset"
converted = pf.convert(
    pf.ConvertConfig(
        images=images,
        labels=DATA / "stage_2_train_labels.csv",
        class_info=DATA / "stage_2_detailed_class_info.csv",
        groups=next(DATA.glob("*mappings*.json"), None),
        out=dataset_path,
        size=SIZE,
        val_fraction=0.3,
        keep_ids=True,
        overwrite=True,
    )
)
print(f"{converted.images} images in {converted.seconds:.1f} s; problems: {pf.verify(dataset_path) or 'none'}")
dataset = pf.Dataset.open(dataset_path)
pd.DataFrame(dataset.manifest.counts).rename_axis("label")

# %% [markdown]
# ## Train
#
# A ResNet-18 with one input channel. Positives are rarer, so the loss weighs them more. The epoch
# with the best figure on the validation split is kept.

# %%
run = OUT / "run"
trained = pf.train(
    pf.TrainConfig(datasets=(dataset_path,), out=run, epochs=EPOCHS, batch_size=32, lr=3e-4, overwrite=True),
    on_epoch=lambda epoch: print(f"epoch {epoch['epoch']}: validation AUROC {epoch['val_auroc']:.3f}"),
)
history = pd.DataFrame(trained.history).set_index("epoch")

# %% [markdown]
# ## Learning curves
#
# The model is memorising where the loss of training falls and that of validation rises.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
history[["train_loss", "val_loss"]].plot(ax=left, marker="o", xticks=history.index, title="Loss")
history[["val_auroc", "val_ap"]].plot(ax=right, marker="o", xticks=history.index, ylim=(0, 1), title="Validation")
for axes in (left, right):
    axes.axvline(trained.best_epoch, color="grey", linestyle=":")  # the epoch that was kept

# %% [markdown]
# ## Evaluate
#
# Every figure comes with its 95 % interval, from a bootstrap by patient. With few patients it is
# wide: that is what so few can tell.

# %%
evaluation = pf.evaluate(pf.EvaluateConfig(run=run, thresholds=(0.5, 0.25)))
auroc = evaluation.figures.ranking.auroc
print(f"{evaluation.figures.n} images, {evaluation.figures.positives} positive")
print(f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})")

figure, panels = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
for axes, name in zip(panels, ("roc.png", "precision_recall.png"), strict=True):
    axes.imshow(plt.imread(evaluation.folder / name))
    axes.axis("off")

# %% [markdown]
# ## Move the threshold from 0.5 to 0.25
#
# The model gives a probability; a threshold makes a decision of it. A lower one misses fewer patients
# (higher sensitivity) and raises more false alarms (lower specificity). What is that worth? Whoever
# uses the model has to say so.

# %%
judged = pd.DataFrame(
    {
        f"threshold {result.threshold}": {
            "sensitivity": result.recall.value,
            "specificity": result.specificity.value,
            "precision": result.precision.value,
            "true positives": result.confusion.tp,
            "false negatives (missed)": result.confusion.fn,
            "false positives (false alarms)": result.confusion.fp,
            "true negatives": result.confusion.tn,
        }
        for result in evaluation.figures.thresholds
    }
)
print(*evaluation.figures.tradeoffs, sep="\n")
judged.round(3)

# %% [markdown]
# ## Heat maps
#
# Grad-CAM shows which parts of an image raised its score: here the most confident true and false
# positives and negatives. A map that lies elsewhere than the boxes is a warning; one that lies on
# them is no proof.

# %%
explanation = pf.explain(pf.ExplainConfig(run=run, count=1))
figure, panels = plt.subplots(
    1, len(explanation.images), figsize=(3 * len(explanation.images), 3), layout="constrained"
)
for axes, drawn in zip(panels.flat, explanation.images, strict=True):
    axes.imshow(plt.imread(explanation.folder / drawn.file))
    axes.axis("off")

# %% [markdown]
# ## Predict on new files
#
# Files that no table knows: the challenge's own test images, or a second set of synthetic ones. Each
# is read by the same rules as the training images, and a warning says where one is unlike them.

# %%
new = DATA / "stage_2_test_images"
if DATA == OUT / "phantoms":
    new = pf.make_phantoms(pf.PhantomConfig(out=OUT / "new", count=8, positive_fraction=0.5, seed=1)).images
predicted = pf.load(run).predict(sorted(new.glob("*.dcm"))[:8])
predicted[["image_id", "probability", "calibrated_probability", "class_at_0.5", "class_at_0.25", "warnings", "reject"]]

# %% [markdown]
# ## All of it on one page

# %%
report = pf.report(pf.ReportConfig(run=run))
print(f"open {report.page} in a browser")
