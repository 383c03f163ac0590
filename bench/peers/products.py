"""The limit of the machine: the matrix products of an LSTM, and nothing else."""

import time

import torch
from torch import Tensor

from sentiment.params.model import ModelParams
from sentiment.training.runtime import Precision


class LSTMProducts:
    """The matrix products of one step through the LSTM, forward and backward, by `torch.mm`.

    A step reads n = sequences * length tokens, none of them padding. With E input and H hidden units, each
    direction of each layer takes, all gates at once:

    - input projection, (n, E) x (E, 4H); its gradient with respect to the input, (n, 4H) x (4H, E), and to
      the weights, (E, n) x (n, 4H): one product each;
    - recurrent projection, (sequences, H) x (H, 4H), and its gradient with respect to the state,
      (sequences, 4H) x (4H, H): one product per token, since each depends on the previous one;
    - gradient of the recurrent weights, (H, n) x (n, 4H): one product, after the gradients of all gates.

    Sums, gates, embedding, pooling, head and optimizer are left out, and results are written to preallocated
    memory. So this rate is an upper bound of training, except for kernels faster than `torch.mm`.
    """

    def __init__(self, params: ModelParams, sequences: int, length: int, precision: Precision) -> None:
        directions = 2 if params.bidirectional else 1
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        hidden = params.hidden_units
        inputs = [params.embedding_dim] + [directions * hidden] * (params.layers - 1)
        self.tokens = sequences * length
        self.directions = [
            _Direction(units, hidden, sequences, length, dtype) for units in inputs for _ in range(directions)
        ]

    def rate(self, steps: int) -> float:
        """Return tokens per second over a number of steps."""
        started = time.perf_counter()
        for _ in range(steps):
            for direction in self.directions:
                direction.step()
        return steps * self.tokens / (time.perf_counter() - started)


class _Direction:
    def __init__(self, units: int, hidden: int, sequences: int, length: int, dtype: torch.dtype) -> None:
        def matrix(*shape: int) -> Tensor:
            return torch.randn(shape).to(dtype)

        n = sequences * length
        self.inputs, self.input_weights = matrix(n, units), matrix(units, 4 * hidden)
        self.states, self.state_weights = matrix(n, hidden), matrix(hidden, 4 * hidden)
        self.gates, self.input_gradient = matrix(n, 4 * hidden), matrix(n, units)
        self.state_gradient = matrix(n, hidden)
        self.input_weight_gradient = matrix(units, 4 * hidden)
        self.state_weight_gradient = matrix(hidden, 4 * hidden)
        slices = (torch.split(part, sequences) for part in (self.states, self.gates, self.state_gradient))
        self.by_token = list(zip(*slices, strict=True))

    def step(self) -> None:
        torch.mm(self.inputs, self.input_weights, out=self.gates)
        for state, gates, _ in self.by_token:
            torch.mm(state, self.state_weights, out=gates)
        for _, gates, gradient in reversed(self.by_token):
            torch.mm(gates, self.state_weights.t(), out=gradient)
        torch.mm(self.states.t(), self.gates, out=self.state_weight_gradient)
        torch.mm(self.gates, self.input_weights.t(), out=self.input_gradient)
        torch.mm(self.inputs.t(), self.gates, out=self.input_weight_gradient)
