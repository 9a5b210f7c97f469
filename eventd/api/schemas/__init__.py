"""Request bodies of the control plane, checked by pydantic at the edge."""
