"""The walk over Arrow text buffers that all rooms share. Imports nothing of ours."""
