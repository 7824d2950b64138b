"""The library under the programs: no click, no printing, no exit."""
