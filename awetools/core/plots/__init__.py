"""Plots as plain values: functions that give the numbers of a plot, and one that draws any of them.

`detector`, `amplifiers` and `columns` make a `figure.Plot` of frames, tables and lists
of numbers, without a plotting library; only those that draw import one, late.
"""
