"""What a person calls the classifier's layers."""

DIRECTIONS = ("forward", "backward")


def layer_name(module: str) -> str:
    """Return the name of the layer that a parameter or module of the classifier belongs to.

    module: its dotted name inside the classifier. Of `layers.0.directions.1.weight_ih_l0` the layer is
    `lstm_1_backward`; of everything else it is the first part, as in `embedding` and `head`.
    """
    part, *inner = module.split(".")
    if part != "layers":
        return part
    return f"lstm_{int(inner[0]) + 1}_{DIRECTIONS[int(inner[2])]}"
