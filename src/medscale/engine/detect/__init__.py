"""Training of YOLOv8 detectors with ultralytics, an optional extra under AGPL-3.0.

Whoever hands on this package together with ultralytics, or offers it as a service, is bound by that
license. Only ``yolo`` imports ultralytics, and only when a detector is trained or used.
"""
