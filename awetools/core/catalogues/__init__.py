"""Local reference catalogues: tables of any form read, their columns known, written in shards of the sky."""
