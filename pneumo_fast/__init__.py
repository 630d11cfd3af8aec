"""Pneumonia classification on chest radiographs: DICOM files to a trained, evaluated and explained classifier.

``import pneumo_fast as pf`` gives the whole public API, which ``docs/python.md`` shows. Each stage is a function of
one frozen dataclass of options: :func:`convert` writes a dataset, :func:`train` a run folder, and :func:`evaluate`,
:func:`explain` and :func:`report` judge the run. :func:`predict` scores new files by it, :func:`export_model` writes
its model for other tools, and :class:`Loader` feeds a training loop of your own. The command line
(``pneumo-fast --help``) makes the same calls. Every error that a person can cause is a :class:`PneumoError`.

A name is imported when it is first used (PEP 562): options and errors load neither NumPy nor PyTorch.
Not for clinical use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_NAMES = {
    "conversion.convert": ("ConvertSummary", "convert"),
    "conversion.lookup": ("IdsSummary", "look_up_ids"),
    "conversion.options": ("ConvertConfig", "IdsConfig"),
    "dataset.folder": ("Dataset",),
    "dataset.selection": ("open_datasets",),
    "dataset.verify": ("verify",),
    "errors": (
        "ConfigError", "ConvertError", "DatasetError", "DeviceError", "LabelError", "PneumoError", "RejectedImageError",
        "ExportError", "PacsError", "PredictError", "RunError", "TrainingError", "TrainingStoppedError",
    ),
    "evaluation.compare": ("Comparison", "compare"),
    "evaluation.evaluate": ("evaluate",),
    "evaluation.options": ("EvaluateConfig",),
    "evaluation.results": ("Evaluation",),
    "explanation.explain": ("explain",),
    "explanation.options": ("ExplainConfig",),
    "explanation.results": ("Explanation",),
    "export.export": ("ExportSummary", "export_model"),
    "export.options": ("ExportConfig",),
    "loading.augment": ("Augmentation",),
    "loading.loader": ("Loader",),
    "loading.options": ("LoadConfig", "ShowConfig"),
    "loading.batches": ("Rank",),
    "loading.preview": ("ShowSummary", "show"),
    "phantoms.make": ("PhantomSet", "make_phantoms"),
    "phantoms.options": ("PhantomConfig",),
    "radiograph.read": ("Radiograph", "read_radiograph"),
    "prediction.options": ("PredictConfig",),
    "prediction.predict": ("PredictSummary", "predict"),
    "prediction.predictor": ("Predictor", "load"),
    "reporting.options": ("ReportConfig",),
    "reporting.report": ("ReportSummary", "report"),
    "run.model": ("build_model",),
    "serving.options": ("ServeConfig",),
    "serving.serve": ("ServeSummary", "serve"),
    "training.cross_validation": ("CrossValidationSummary", "cross_validate"),
    "training.options": ("TrainConfig", "recipe"),
    "training.train": ("TrainSummary", "train"),
}  # fmt: skip
"""The public names, by the module that defines them; the imports below tell them to type checkers and editors."""
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = list(_MODULE_OF)

if TYPE_CHECKING:
    from pneumo_fast.conversion.convert import ConvertSummary as ConvertSummary
    from pneumo_fast.conversion.convert import convert as convert
    from pneumo_fast.conversion.lookup import IdsSummary as IdsSummary
    from pneumo_fast.conversion.lookup import look_up_ids as look_up_ids
    from pneumo_fast.conversion.options import ConvertConfig as ConvertConfig
    from pneumo_fast.conversion.options import IdsConfig as IdsConfig
    from pneumo_fast.dataset.folder import Dataset as Dataset
    from pneumo_fast.dataset.selection import open_datasets as open_datasets
    from pneumo_fast.dataset.verify import verify as verify
    from pneumo_fast.errors import ConfigError as ConfigError
    from pneumo_fast.errors import ConvertError as ConvertError
    from pneumo_fast.errors import DatasetError as DatasetError
    from pneumo_fast.errors import DeviceError as DeviceError
    from pneumo_fast.errors import ExportError as ExportError
    from pneumo_fast.errors import LabelError as LabelError
    from pneumo_fast.errors import PacsError as PacsError
    from pneumo_fast.errors import PneumoError as PneumoError
    from pneumo_fast.errors import PredictError as PredictError
    from pneumo_fast.errors import RejectedImageError as RejectedImageError
    from pneumo_fast.errors import RunError as RunError
    from pneumo_fast.errors import TrainingError as TrainingError
    from pneumo_fast.errors import TrainingStoppedError as TrainingStoppedError
    from pneumo_fast.evaluation.compare import Comparison as Comparison
    from pneumo_fast.evaluation.compare import compare as compare
    from pneumo_fast.evaluation.evaluate import evaluate as evaluate
    from pneumo_fast.evaluation.options import EvaluateConfig as EvaluateConfig
    from pneumo_fast.evaluation.results import Evaluation as Evaluation
    from pneumo_fast.explanation.explain import explain as explain
    from pneumo_fast.explanation.options import ExplainConfig as ExplainConfig
    from pneumo_fast.explanation.results import Explanation as Explanation
    from pneumo_fast.export.export import ExportSummary as ExportSummary
    from pneumo_fast.export.export import export_model as export_model
    from pneumo_fast.export.options import ExportConfig as ExportConfig
    from pneumo_fast.loading.augment import Augmentation as Augmentation
    from pneumo_fast.loading.batches import Rank as Rank
    from pneumo_fast.loading.loader import Loader as Loader
    from pneumo_fast.loading.options import LoadConfig as LoadConfig
    from pneumo_fast.loading.options import ShowConfig as ShowConfig
    from pneumo_fast.loading.preview import ShowSummary as ShowSummary
    from pneumo_fast.loading.preview import show as show
    from pneumo_fast.phantoms.make import PhantomSet as PhantomSet
    from pneumo_fast.phantoms.make import make_phantoms as make_phantoms
    from pneumo_fast.phantoms.options import PhantomConfig as PhantomConfig
    from pneumo_fast.prediction.options import PredictConfig as PredictConfig
    from pneumo_fast.prediction.predict import PredictSummary as PredictSummary
    from pneumo_fast.prediction.predict import predict as predict
    from pneumo_fast.prediction.predictor import Predictor as Predictor
    from pneumo_fast.prediction.predictor import load as load
    from pneumo_fast.radiograph.read import Radiograph as Radiograph
    from pneumo_fast.radiograph.read import read_radiograph as read_radiograph
    from pneumo_fast.reporting.options import ReportConfig as ReportConfig
    from pneumo_fast.reporting.report import ReportSummary as ReportSummary
    from pneumo_fast.reporting.report import report as report
    from pneumo_fast.run.model import build_model as build_model
    from pneumo_fast.serving.options import ServeConfig as ServeConfig
    from pneumo_fast.serving.serve import ServeSummary as ServeSummary
    from pneumo_fast.serving.serve import serve as serve
    from pneumo_fast.training.cross_validation import CrossValidationSummary as CrossValidationSummary
    from pneumo_fast.training.cross_validation import cross_validate as cross_validate
    from pneumo_fast.training.options import TrainConfig as TrainConfig
    from pneumo_fast.training.options import recipe as recipe
    from pneumo_fast.training.train import TrainSummary as TrainSummary
    from pneumo_fast.training.train import train as train
else:  # out of a type checker's sight, to which a module-level __getattr__ makes every name a good one

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
