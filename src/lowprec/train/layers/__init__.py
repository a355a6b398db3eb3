"""The layers: frozen values, each with its forward and backward pass side by side."""

from lowprec.train.layers.activation import ELU as ELU
from lowprec.train.layers.activation import Activation as Activation
from lowprec.train.layers.activation import LeakyReLU as LeakyReLU
from lowprec.train.layers.conv2d import Conv2D as Conv2D
from lowprec.train.layers.dense import Dense as Dense
from lowprec.train.layers.dropout import AlphaDropout as AlphaDropout
from lowprec.train.layers.dropout import Dropout as Dropout
from lowprec.train.layers.flatten import Flatten as Flatten
from lowprec.train.layers.input import Input as Input
from lowprec.train.layers.layer import Layer as Layer
from lowprec.train.layers.layer import Numerics as Numerics
from lowprec.train.layers.layer import Run as Run
from lowprec.train.layers.normalization import BatchNormalization as BatchNormalization
from lowprec.train.layers.normalization import LayerNormalization as LayerNormalization
from lowprec.train.layers.pooling import MaxPooling2D as MaxPooling2D
