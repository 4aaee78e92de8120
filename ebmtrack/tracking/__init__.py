"""The online tracker."""
