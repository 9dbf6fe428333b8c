#include "base/js.h"
