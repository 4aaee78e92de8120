"""3D boxes with an energy on a bird's-eye-view map (Gustafsson et al., CVPR workshops 2021)."""
