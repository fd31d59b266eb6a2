#include <Block.h> /* GNUstep asks for this header of libobjc2; libBlocksRuntime has the same functions there */
