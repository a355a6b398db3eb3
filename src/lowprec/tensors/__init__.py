"""Tensors on disk: named, read by block, converted from one format to another.

Nothing here needs more memory than a few blocks, however large a tensor is, and nothing in a file
is ever executed. `kinds` has a module for each kind of file; `opening` finds the kind of a file,
and `writing` writes tensors, under a temporary name until all is there (`writing.replacing`); other
files go through `common.whole_files`. `packings` knows how libraries lay quantized tensors out,
`layouts` how lowprec writes them; `converting` and `planning` choose and carry out formats.
"""

from lowprec.tensors.converting import Conversion as Conversion
from lowprec.tensors.converting import convert as convert
from lowprec.tensors.opening import open_tensors as open_tensors
from lowprec.tensors.request import tensor_seed as tensor_seed
from lowprec.tensors.sources import as_tensor as as_tensor
from lowprec.tensors.tensor import Tensor as Tensor
from lowprec.tensors.tensor import TensorFile as TensorFile
from lowprec.tensors.tensor import Tensors as Tensors
from lowprec.tensors.writing import write_tensors as write_tensors
