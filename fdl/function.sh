#!/bin/sh
# The script of every DiOSCAR function: the FDL variable DIOSCAR_FUNCTION names which one.
exec python3 -P -m layers.runtime
