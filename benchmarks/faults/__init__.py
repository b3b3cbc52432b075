"""Faults on purpose: what is killed, filled, taken away or damaged must end in a sound index or in a plain word.

    make faults     or     cd benchmarks && python -m faults [--kills 500] [--seed 1] [--only KIND]

Each kind of fault is a file here. After each fault the index must open, be consistent, and equal an undisturbed one
after one sync; or coocnet must say what is damaged and how to mend it. The first time that something else happens
ends the campaign, with the seed to repeat it. The network has random filters: nothing is downloaded.
"""
