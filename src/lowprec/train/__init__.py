"""Mixed-precision training in which every rounding is under control: Keras' words at the front.

>>> from lowprec import train
>>> model = train.Sequential([train.Input((64,)), train.Dense(32, "relu"), train.Dense(10)])
>>> history = train.fit(model, train.data.digits(), loss="sparse_categorical_crossentropy",
...                     optimizer=train.Adam(1e-2), policy="mixed_float16", epochs=2)
>>> history.history["val_accuracy"][-1] > 0.8
True

`policy` says which format each part uses and `numerics` does it to arrays; `running` is a training
from `fit` to its history, `optimizing` the optimizers' formulas, `loss_scale` how the scale adapts.
`recorder` tells what rounding did in a run, `diagnosis` why it failed, `studies` compares runs.
`model` and `compiled_network` have Keras' methods, `keras_words` what to type for what is missing.
"""

from lowprec.train import activations as activations
from lowprec.train import callbacks as callbacks
from lowprec.train import data as data
from lowprec.train import initializers as initializers
from lowprec.train import keras_words as _keras_words
from lowprec.train import layers as layers
from lowprec.train import losses as losses
from lowprec.train import metrics as metrics
from lowprec.train import optimizers as optimizers
from lowprec.train import recipes as recipes
from lowprec.train import regularizers as regularizers
from lowprec.train import schedules as schedules
from lowprec.train.activity import LayerOutputs as LayerOutputs
from lowprec.train.activity import dead_units as dead_units
from lowprec.train.activity import layer_outputs as layer_outputs
from lowprec.train.callbacks import Callback as Callback
from lowprec.train.callbacks import Checkpoint as Checkpoint
from lowprec.train.callbacks import CSVLogger as CSVLogger
from lowprec.train.callbacks import EarlyStopping as EarlyStopping
from lowprec.train.callbacks import LambdaCallback as LambdaCallback
from lowprec.train.callbacks import LearningRateScheduler as LearningRateScheduler
from lowprec.train.callbacks import ModelCheckpoint as ModelCheckpoint
from lowprec.train.callbacks import ReduceLROnPlateau as ReduceLROnPlateau
from lowprec.train.callbacks import TerminateOnNaN as TerminateOnNaN
from lowprec.train.dataset import Dataset as Dataset
from lowprec.train.diagnosis import Diagnosis as Diagnosis
from lowprec.train.diagnosis import diagnose as diagnose
from lowprec.train.folding import fold as fold
from lowprec.train.layers import ELU as ELU
from lowprec.train.layers import Activation as Activation
from lowprec.train.layers import AlphaDropout as AlphaDropout
from lowprec.train.layers import AveragePooling2D as AveragePooling2D
from lowprec.train.layers import BatchNormalization as BatchNormalization
from lowprec.train.layers import Conv2D as Conv2D
from lowprec.train.layers import Dense as Dense
from lowprec.train.layers import Dropout as Dropout
from lowprec.train.layers import Flatten as Flatten
from lowprec.train.layers import GlobalAveragePooling2D as GlobalAveragePooling2D
from lowprec.train.layers import GlobalMaxPooling2D as GlobalMaxPooling2D
from lowprec.train.layers import Input as Input
from lowprec.train.layers import Layer as Layer
from lowprec.train.layers import LayerNormalization as LayerNormalization
from lowprec.train.layers import LeakyReLU as LeakyReLU
from lowprec.train.layers import MaxPooling2D as MaxPooling2D
from lowprec.train.layers import ReLU as ReLU
from lowprec.train.layers import Reshape as Reshape
from lowprec.train.layers import Softmax as Softmax
from lowprec.train.loss_scale import LossScale as LossScale
from lowprec.train.memory import bytes_per_parameter as bytes_per_parameter
from lowprec.train.model import Sequential as Sequential
from lowprec.train.model import load_model as load_model
from lowprec.train.optimizers import SGD as SGD
from lowprec.train.optimizers import Adadelta as Adadelta
from lowprec.train.optimizers import AdaGrad as AdaGrad
from lowprec.train.optimizers import Adagrad as Adagrad
from lowprec.train.optimizers import Adam as Adam
from lowprec.train.optimizers import AdaMax as AdaMax
from lowprec.train.optimizers import Adamax as Adamax
from lowprec.train.optimizers import AdamW as AdamW
from lowprec.train.optimizers import Momentum as Momentum
from lowprec.train.optimizers import Nadam as Nadam
from lowprec.train.optimizers import Nesterov as Nesterov
from lowprec.train.optimizers import Optimizer as Optimizer
from lowprec.train.optimizers import RMSProp as RMSProp
from lowprec.train.optimizers import RMSprop as RMSprop
from lowprec.train.paths import optimizer_path as optimizer_path
from lowprec.train.policy import Policy as Policy
from lowprec.train.policy import get_policy as get_policy
from lowprec.train.policy import named_policies as named_policies
from lowprec.train.recorder import Recorder as Recorder
from lowprec.train.regularizers import L1 as L1
from lowprec.train.regularizers import L1L2 as L1L2
from lowprec.train.regularizers import L2 as L2
from lowprec.train.regularizers import MaxNorm as MaxNorm
from lowprec.train.running.history import History as History
from lowprec.train.running.loop import fit as fit
from lowprec.train.running.passes import gradients as gradients
from lowprec.train.running.prediction import evaluate as evaluate
from lowprec.train.running.prediction import predict as predict
from lowprec.train.studies.comparison import compare_policies as compare_policies
from lowprec.train.studies.policy_comparison import PolicyComparison as PolicyComparison
from lowprec.train.studies.rates import find_learning_rate as find_learning_rate
from lowprec.train.studies.searching import search as search
from lowprec.train.studies.spaces import integers as integers
from lowprec.train.studies.spaces import log_uniform as log_uniform
from lowprec.train.studies.spaces import uniform as uniform


def __getattr__(name: str) -> object:
    """Say what stands for something of Keras'; there is no policy for everything."""
    raise _keras_words.no_attribute(__name__, name, _keras_words.IN_TRAIN)
