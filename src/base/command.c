#include "base/command.h"
