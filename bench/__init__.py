"""Measurements, each in a module that runs by itself."""

import stages as stages  # threads of torch wait as they do in a stage, whose speed is what is measured
