"""What runs inside a job's pod; standard library only, for the job image has nothing else of ours.

The image holds this package as ``/opt/syftmesh/pod`` and its containers start it from there as ``python -m pod.…``,
so its modules import each other relatively.
"""
