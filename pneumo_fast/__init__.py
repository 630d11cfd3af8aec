"""From a folder of chest radiographs and a label table to a judged pneumonia classifier.

The command line (``pneumo-fast --help``) is a thin layer over the modules of this package; each command is one
call: :func:`pneumo_fast.conversion.convert.convert`, :func:`pneumo_fast.training.train.train`,
:func:`pneumo_fast.evaluation.evaluate.evaluate`. Nothing heavy is imported here. Not for clinical use.
"""

__version__ = "0.1.0"
