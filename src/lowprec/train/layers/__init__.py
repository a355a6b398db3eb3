"""The layers: frozen values, each with its forward and backward pass side by side."""

from lowprec.train import keras_words as _keras_words
from lowprec.train.layers.activation import ELU as ELU
from lowprec.train.layers.activation import Activation as Activation
from lowprec.train.layers.activation import LeakyReLU as LeakyReLU
from lowprec.train.layers.activation import ReLU as ReLU
from lowprec.train.layers.activation import Softmax as Softmax
from lowprec.train.layers.conv2d import Conv2D as Conv2D
from lowprec.train.layers.dense import Dense as Dense
from lowprec.train.layers.dropout import AlphaDropout as AlphaDropout
from lowprec.train.layers.dropout import Dropout as Dropout
from lowprec.train.layers.flatten import Flatten as Flatten
from lowprec.train.layers.flatten import Reshape as Reshape
from lowprec.train.layers.input import Input as Input
from lowprec.train.layers.layer import Layer as Layer
from lowprec.train.layers.layer import Numerics as Numerics
from lowprec.train.layers.layer import Run as Run
from lowprec.train.layers.normalization import BatchNormalization as BatchNormalization
from lowprec.train.layers.normalization import LayerNormalization as LayerNormalization
from lowprec.train.layers.pooling import AveragePooling2D as AveragePooling2D
from lowprec.train.layers.pooling import GlobalAveragePooling2D as GlobalAveragePooling2D
from lowprec.train.layers.pooling import GlobalMaxPooling2D as GlobalMaxPooling2D
from lowprec.train.layers.pooling import MaxPooling2D as MaxPooling2D

MaxPool2D, AvgPool2D = MaxPooling2D, AveragePooling2D  # Keras' other spelling


def __getattr__(name: str) -> object:
    """Say what stands for a layer that Keras has."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise _keras_words.no_layer(name, [known for known in globals() if known[0].isupper()])
